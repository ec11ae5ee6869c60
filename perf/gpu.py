# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""VmpfdAd beside anomalib's models on a GPU, the ViM block beside attention there, and a step of the paper's preset.

    python perf/gpu.py

Writes ``gpu.csv`` into ``results/speed``: milliseconds, medians over the rounds, in each of which every row takes its
turn. Models are measured as :mod:`anomalib_vmpfd.benchmark.run.speed` has it, transfers included, on images of
256 x 256 pixels; VmpfdAd has been trained on the generated parts, the others are those of ``peers.py``. Blocks have the
width of the encoder, their backends are those of ``scan_growth.py`` and mamba-ssm's kernel where it is installed.
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import yaml
from anomalib.engine import Engine
from peers import BUILDERS, SIDE
from peers import build as build_peer
from scan_growth import DIM, AttentionBlock
from torch import nn

from anomalib_vmpfd import SampleParts, VmpfdAd
from anomalib_vmpfd.benchmark.run.environment import describe
from anomalib_vmpfd.engine.optim import adamw
from anomalib_vmpfd.nn.vision_mamba_block import VisionMambaBlock
from anomalib_vmpfd.ops.selective_scan import cuda

ROOT = Path(__file__).parents[1]
TOKENS = (64, 256, 1024, 4096)
COLUMNS = ("what", "backend", "precision", "batch", "tokens", "direction", "ms")
Row = tuple[tuple[object, ...], Callable[[], object]]


def model_rows(device: torch.device) -> list[Row]:
    """Whole models, from images on the host to scores on the host."""
    data = SampleParts(root=ROOT / "datasets" / "sample", num_workers=0, val_split_mode="none")
    models: dict[str, nn.Module] = {"VmpfdAd": VmpfdAd(visualizer=False)}
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"logger": False, "enable_progress_bar": False, "limit_val_batches": 0}
        Engine(accelerator="gpu", devices=1, default_root_dir=folder, **quiet).fit(models["VmpfdAd"], datamodule=data)
    models |= {name: build_peer(name) for name in BUILDERS}
    rows: list[Row] = []
    for name, model in models.items():
        model.to(device).eval().requires_grad_(requires_grad=False)
        for precision in ("fp32", "bf16"):
            for batch in (1, 16):
                images = torch.rand(batch, 3, SIDE, SIDE)

                def run(
                    model: nn.Module = model, images: torch.Tensor = images, low: bool = precision == "bf16"
                ) -> None:
                    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=low):
                        model(images.to(device)).pred_score.cpu()

                rows.append(((name, "", precision, batch, "", "forward"), run))
    return rows


def block_rows(device: torch.device, batch: int = 4) -> list[Row]:
    """A ViM block by backend, and attention."""
    backends = ["chunked", *(["cuda"] if cuda.is_available() else [])]
    blocks = {f"vim-{name}": VisionMambaBlock(DIM, backend=name) for name in backends} | {"attention": AttentionBlock()}
    rows: list[Row] = []
    for name, module in blocks.items():
        block = module.to(device)
        for tokens in TOKENS:
            x = torch.randn(batch, tokens, DIM, device=device, requires_grad=True)

            def forward(block: nn.Module = block, x: torch.Tensor = x) -> None:
                with torch.no_grad():
                    block(x)
                torch.cuda.synchronize()

            def both(block: nn.Module = block, x: torch.Tensor = x) -> None:
                torch.autograd.grad(block(x).sum(), [x, *block.parameters()])
                torch.cuda.synchronize()

            rows += [
                (("block", name, "fp32", batch, tokens, "forward"), forward),
                (("block", name, "fp32", batch, tokens, "forward and backward"), both),
            ]
    return rows


def step_rows(device: torch.device) -> list[Row]:
    """A step of the paper's preset, its descriptors known."""
    preset = yaml.safe_load((ROOT / "configs" / "vmpfd_ad_paper.yaml").read_text(encoding="utf-8"))
    arguments, batch = preset["model"]["init_args"], preset["data"]["init_args"]["train_batch_size"]
    model = VmpfdAd(**arguments, visualizer=False).model.to(device).train()
    images = torch.rand(batch, 3, *arguments["image_size"], device=device)
    with torch.no_grad():
        described = model.descriptor.describe(images)
    optimizer = adamw(model, arguments["lr"], arguments["weight_decay"], "constant", 1)["optimizer"]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        sum(model(images, described).values()).backward()
        optimizer.step()
        torch.cuda.synchronize()

    return [(("step of the paper's preset", "", "fp32", batch, "", "forward and backward"), step)]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "speed")
    arguments = parser.parse_args()
    device = torch.device("cuda", 0)
    rows = [*step_rows(device), *block_rows(device), *model_rows(device)]
    seconds: list[list[float]] = [[] for _ in rows]
    for _ in range(arguments.rounds + 1):
        for (_, run), times in zip(rows, seconds, strict=True):
            run()  # brings the clocks and the caches back
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    known = describe(device)
    conditions = {name: known[name] for name in ("device_name", "torch_version", "commit", "date")}
    arguments.output.mkdir(parents=True, exist_ok=True)
    with (arguments.output / "gpu.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *conditions], lineterminator="\n")
        writer.writeheader()
        for (what, _), times in zip(rows, seconds, strict=True):
            ms = f"{1e3 * median(times[1:]):.4g}"
            writer.writerow(dict(zip(COLUMNS, (*what, ms), strict=True)) | conditions)
    print(arguments.output / "gpu.csv")


if __name__ == "__main__":
    main()
