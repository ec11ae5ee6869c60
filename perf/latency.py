# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Latency and throughput of VmpfdAd beside anomalib's models for CPUs, and of the PDN beside a matrix product.

    python perf/latency.py
    python perf/latency.py --screw <folder of MVTec AD>     also times the default training on screw

Writes ``latency.csv`` and ``ratios.csv``, with ``--screw`` also ``training.csv``, into ``results/speed``. Everything is
measured in one process, taking turns: in every round each row runs once without the clock, which brings its weights
back into the caches, and once with it. What else the machine does then touches all rows alike, and their ratios hold.
Latencies are medians over the rounds. Batches of 16 are long enough to do without the first of the two passes.

Every model is anomalib's own module as it is exported, pre- and post-processor included, on images of 256 x 256
pixels, in bfloat16 too where the processor has it. VmpfdAd has been trained and calibrated, on generated parts or on
screw; the others are those of ``peers.py``, each with its own pre-processor. Nothing is downloaded. ``memory.py`` has
the memory and the start of each.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from anomalib.data import AnomalibDataModule, MVTecAD
from anomalib.deploy import ExportType
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork
from peers import BUILDERS, SIDE, build
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from anomalib_vmpfd import SampleParts, VmpfdAd
from anomalib_vmpfd.benchmark.run.environment import describe
from anomalib_vmpfd.files import replace_rows
from anomalib_vmpfd.processor import has_bf16

ROOT = Path(__file__).parents[1]
MODELS = ("VmpfdAd", *BUILDERS, "PDN-S")
EFFICIENT_AD_STEPS = 70_000
# where a processor only emulates bfloat16, a pass takes several times its float32, and nobody would ask for it
PRECISIONS = ("fp32",) if has_bf16() is False else ("fp32", "bf16")


@dataclass
class Row:
    """One line of the table and what it measures."""

    model: str
    backend: str
    precision: str
    memory_format: str
    batch: int
    run: Callable[[], object]
    gflop: float | None = None
    seconds: list[float] = field(default_factory=list)

    @property
    def latency_ms(self) -> float:
        """Median time of a call."""
        return 1e3 * median(self.seconds)

    @property
    def gflop_per_s(self) -> float | None:
        """Arithmetic a second, where the work of a call is known."""
        return self.gflop and 1e3 * self.gflop / self.latency_ms


def torch_row(
    model: str, module: nn.Module, images: Tensor, precision: str = "fp32", channels_last: bool = False
) -> Row:
    """Run a module of torch, on a CPU where ``channels_last`` and bf16 are asked for as a user would."""
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)

    def run() -> object:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return module(images)

    with FlopCounterMode(display=False) as counter:
        run()
    layout = "channels_last" if channels_last else "contiguous"
    return Row(model, "torch", precision, layout, len(images), run, counter.get_total_flops() / 1e9)


def vmpfd_rows(model: VmpfdAd, images: Tensor, threads: int, folder: Path) -> list[Row]:
    """VmpfdAd in torch, ONNX Runtime and OpenVINO, exported as ``anomalib export`` does."""
    import onnxruntime
    import openvino

    model.eval()
    engine = Engine(default_root_dir=folder, accelerator="cpu", logger=False)
    onnx_path = engine.export(model, ExportType.ONNX, export_root=folder)
    openvino_path = engine.export(model, ExportType.OPENVINO, export_root=folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(onnx_path, options)
    config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    network = core.compile_model(openvino_path, "CPU", config)

    rows = []
    for batch in (images[:1], images):
        # the model changes to channels_last where it pays
        rows += [torch_row("VmpfdAd", model, batch, precision, channels_last=True) for precision in PRECISIONS]
        array = batch.numpy()
        feed = {session.get_inputs()[0].name: array}
        run = lambda feed=feed: session.run(None, feed)  # noqa: E731
        rows.append(Row("VmpfdAd", "onnxruntime", "fp32", "contiguous", len(batch), run))
        run = lambda array=array: network(array)  # noqa: E731
        rows.append(Row("VmpfdAd", "openvino", "fp32", "contiguous", len(batch), run))
    return rows


def pdn_rows(images: Tensor) -> Iterator[Row]:
    """The bare PDN-S and square matrix products, the peak that it is held against."""
    network = SmallPatchDescriptionNetwork(384).eval().to(memory_format=torch.channels_last)
    for precision in PRECISIONS:
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        yield torch_row("PDN-S", network, images[:1], precision, channels_last=True)
        for side in (1024, 2048):
            a, b = torch.rand(2, side, side).to(dtype)
            run = lambda a=a, b=b: a @ b  # noqa: E731
            yield Row(f"matrix product {side}", "torch", precision, "contiguous", 1, run, 2e-9 * side**3)


def efficient_ad_step_seconds(steps: int) -> list[float]:
    """Times of training steps of EfficientAd-S at its batch of one, without loading any images."""
    model = build("EfficientAd-S").requires_grad_().model.train()
    optimizer = torch.optim.Adam([*model.student.parameters(), *model.ae.parameters()], lr=1e-4, weight_decay=1e-5)
    seconds = []
    for _ in range(steps + 1):
        image, natural = torch.rand(2, 1, 3, SIDE, SIDE)
        start = time.perf_counter()
        optimizer.zero_grad()
        sum(model(image, natural)).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def train(model: AnomalibModule, datamodule: AnomalibDataModule, folder: Path, **limits: int) -> tuple[float, int]:
    """Seconds and steps of a training through anomalib's engine."""
    engine = Engine(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        **limits,
    )
    start = time.perf_counter()
    engine.fit(model, datamodule=datamodule)
    return time.perf_counter() - start, engine.trainer.global_step


def measure(rows: list[Row], rounds: int) -> None:
    """Let all rows take turns."""
    for row in rows:
        for _ in range(3 if row.batch == 1 else 1):
            row.run()
    for index in range(rounds):
        for row in rows:
            if row.batch > 1 and index >= max(3, rounds // 6):
                continue
            if row.batch == 1:
                row.run()
            start = time.perf_counter()
            row.run()
            row.seconds.append(time.perf_counter() - start)
        print(f"round {index + 1} of {rounds}", file=sys.stderr, flush=True)


def ratios(rows: list[Row], training: dict[str, float]) -> Iterator[tuple[str, float, float]]:
    """What the project promises: its name, the measured value and the least that it must be."""
    found = {(row.model, row.backend, row.precision, row.memory_format, row.batch): row for row in rows}

    def times_as_fast(ours: tuple, other: tuple) -> float | None:
        return found[other].latency_ms / found[ours].latency_ms if ours in found and other in found else None

    fp32, bf16 = (("VmpfdAd", "torch", precision, "channels_last", 1) for precision in ("fp32", "bf16"))
    peer = "EfficientAd-S", "torch"
    promises = [
        (
            "times as fast as EfficientAd-S as anomalib runs it",
            times_as_fast(fp32, (*peer, "fp32", "contiguous", 1)),
            7,
        ),
        ("times as fast as Patchcore", times_as_fast(fp32, ("Patchcore", "torch", "fp32", "contiguous", 1)), 10),
        (
            "times as fast as EfficientAd-S, both channels_last and bf16",
            times_as_fast(bf16, (*peer, "bf16", "channels_last", 1)),
            15,
        ),
        (
            "times as fast in OpenVINO as in torch",
            times_as_fast(("VmpfdAd", "openvino", "fp32", "contiguous", 1), fp32),
            1.5,
        ),
    ]
    for precision in ("fp32", "bf16"):
        pdn = found.get(("PDN-S", "torch", precision, "channels_last", 1))
        if pdn:
            peak = max(r.gflop_per_s for r in rows if r.model.startswith("matrix") and r.precision == precision)
            promises.append((
                f"share of the {precision} matrix product's peak that PDN-S reaches",
                pdn.gflop_per_s / peak,
                0.7,
            ))
    if training:
        share = training["EfficientAd-S"] / training["VmpfdAd"]
        promises.append(("trainings of VmpfdAd on screw in one of EfficientAd-S", share, 10))
    return (promise for promise in promises if promise[1] is not None)


def main() -> None:
    """Time everything that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--screw", type=Path, metavar="ROOT", help="folder of MVTec AD: train the default on its screw")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "speed")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = describe(torch.device("cpu"))
    conditions = {name: machine[name] for name in ("device", "device_name", "threads", "commit", "date")}
    conditions["torch"] = torch.__version__

    rows: list[Row] = []
    training: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loading = {"train_batch_size": 16, "eval_batch_size": 16, "num_workers": 0, "val_split_mode": "from_train"}
        if arguments.screw:
            datamodule = MVTecAD(root=arguments.screw, category="screw", **loading)
        else:
            datamodule = SampleParts(root=folder / "parts", **loading)
        if "VmpfdAd" in arguments.models:
            model = VmpfdAd(image_size=(SIDE, SIDE))
            if arguments.screw:
                before = efficient_ad_step_seconds(5)
                seconds, steps = train(model, datamodule, folder)
                step = median(before + efficient_ad_step_seconds(5))
                training = {"VmpfdAd": seconds, "EfficientAd-S": step * EFFICIENT_AD_STEPS}
                table = [
                    {"model": "VmpfdAd", "steps": steps, "step_ms": "", "training_s": round(seconds, 1)},
                    {
                        "model": "EfficientAd-S",
                        "steps": EFFICIENT_AD_STEPS,
                        "step_ms": round(1e3 * step, 1),
                        "training_s": round(step * EFFICIENT_AD_STEPS),
                    },
                ]
                replace_rows(arguments.output / "training.csv", [row | conditions for row in table], ())
            else:
                train(model, datamodule, folder, max_epochs=1, limit_train_batches=1)
        datamodule.prepare_data()
        datamodule.setup()
        images = F.interpolate(
            next(iter(datamodule.test_dataloader())).image, (SIDE, SIDE), mode="bilinear", antialias=True
        )
        if "VmpfdAd" in arguments.models:
            rows += vmpfd_rows(model, images, arguments.threads, folder)
        for peer in (name for name in BUILDERS if name in arguments.models):
            module = build(peer)
            rows += [torch_row(peer, module, batch) for batch in (images[:1], images)]
        if "EfficientAd-S" in arguments.models:
            tuned = build("EfficientAd-S").to(memory_format=torch.channels_last)
            for precision in PRECISIONS:
                rows.append(torch_row("EfficientAd-S", tuned, images[:1], precision, channels_last=True))
        if "PDN-S" in arguments.models:
            rows += pdn_rows(images)
        measure(rows, arguments.rounds)

    table = []
    for row in rows:
        names = ("model", "backend", "precision", "memory_format", "batch")
        rate = row.gflop_per_s
        figures = {
            "latency_ms_median": round(row.latency_ms, 2),
            "throughput_ips": "" if row.model.startswith("matrix") else round(1e3 * row.batch / row.latency_ms, 2),
            "gflop": "" if row.gflop is None else round(row.gflop, 3),
            "gflop_per_s": "" if rate is None else round(rate, 1),
            "rounds": len(row.seconds),
        }
        table.append({name: getattr(row, name) for name in names} | figures | conditions)
        print(*list(table[-1].values())[:9], sep="\t")
    replace_rows(arguments.output / "latency.csv", table, ())
    promises = [
        {"promise": name, "measured": round(value, 3), "at_least": least, "kept": value >= least} | conditions
        for name, value, least in ratios(rows, training)
    ]
    if promises:
        # what this run did not measure stays as it was
        replace_rows(arguments.output / "ratios.csv", promises, ("promise",))
    for promise in promises:
        print(f"{promise['promise']}: {promise['measured']:.2f}, at least {promise['at_least']}")


if __name__ == "__main__":
    main()
