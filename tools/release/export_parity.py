# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Do the exports of a checkpoint give the same answers? On every test image of a data set, batch by batch of one.

    python tools/release/export_parity.py --checkpoint model.ckpt --name screw \
        --data MVTec --data.root <folder of MVTec AD> --data.category screw
    python tools/release/export_parity.py --checkpoint model.ckpt --name magnetic_tile \
        --data configs/data/magnetic_tile.yaml --data.root <folder>

The checkpoint is exported with anomalib's engine to torch, ONNX and OpenVINO. Images go in as they lie on the disk, so
that the resize inside the exports takes part. The reference is anomalib's own prediction, ``Engine.predict`` with the
checkpoint. The rows of the data set in ``results/speed/export_parity.csv`` are replaced:

===========  =========================================================================================================
backend      what runs
===========  =========================================================================================================
torch        ``TorchInferencer``
torch-bf16   the same under ``torch.autocast``, as ``precision="bf16-mixed"`` does
onnxruntime  ONNX Runtime
openvino     ``OpenVINOInferencer``, in float32 on every processor
===========  =========================================================================================================

``map_difference`` is the largest difference of a map over the range of the reference's map of that image,
``verdicts_differ`` counts images that are called normal by one and anomalous by the other.
"""

import csv
import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch
from anomalib.data import AnomalibDataModule
from anomalib.data.utils import read_image
from anomalib.deploy import ExportType, OpenVINOInferencer, TorchInferencer
from anomalib.engine import Engine
from jsonargparse import ArgumentParser

from anomalib_vmpfd import VmpfdAd, register
from anomalib_vmpfd.benchmark.run.environment import describe

ROOT = Path(__file__).parents[2]
BACKENDS = ("torch", "torch-bf16", "onnxruntime", "openvino")
Answer = tuple[np.ndarray, bool]


def exported(checkpoint: Path, backends: Sequence[str], folder: Path) -> dict[str, Callable]:
    """Export the checkpoint and return what each backend answers to an image ``(3, H, W)``: its map and its verdict."""
    engine = Engine(default_root_dir=folder, accelerator="cpu", logger=False)
    model = VmpfdAd.load_from_checkpoint(checkpoint)
    predict: dict[str, Callable[[torch.Tensor], Answer]] = {}

    if "torch" in backends or "torch-bf16" in backends:
        os.environ["TRUST_REMOTE_CODE"] = "1"  # our own file of a moment ago
        torch_path = engine.export(model, ExportType.TORCH, folder, ckpt_path=checkpoint)
        in_torch = TorchInferencer(torch_path, device="cpu")

        def by_torch(image: torch.Tensor, bf16: bool) -> Answer:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                seen = in_torch.predict(image)
            return seen.anomaly_map[0].float().numpy(), bool(seen.pred_label)

        predict["torch"] = partial(by_torch, bf16=False)
        predict["torch-bf16"] = partial(by_torch, bf16=True)
    if "onnxruntime" in backends:
        session = onnxruntime.InferenceSession(engine.export(model, ExportType.ONNX, folder, ckpt_path=checkpoint))
        outputs = ["anomaly_map", "pred_label"]

        def by_onnxruntime(image: torch.Tensor) -> Answer:
            anomaly_map, label = session.run(outputs, {session.get_inputs()[0].name: image[None].numpy()})
            return anomaly_map[0, 0], bool(label)

        predict["onnxruntime"] = by_onnxruntime
    if "openvino" in backends:
        path = engine.export(model, ExportType.OPENVINO, folder, ckpt_path=checkpoint)
        # without the hint OpenVINO computes in bf16 where the processor can
        inferencer = OpenVINOInferencer(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        def by_openvino(image: torch.Tensor) -> Answer:
            seen = inferencer.predict(image.permute(1, 2, 0).numpy())
            return seen.anomaly_map.reshape(seen.anomaly_map.shape[-2:]), bool(np.squeeze(seen.pred_label))

        predict["openvino"] = by_openvino
    return {backend: predict[backend] for backend in backends}


def reference(checkpoint: Path, datamodule: AnomalibDataModule, folder: Path) -> dict[str, Answer]:
    """Map and verdict of every test image, by path, from anomalib's engine."""
    engine = Engine(default_root_dir=folder, accelerator="cpu", logger=False)
    model = VmpfdAd.load_from_checkpoint(checkpoint, visualizer=False)
    batches = engine.predict(model, datamodule=datamodule)
    return {
        path: (anomaly_map.reshape(anomaly_map.shape[-2:]).numpy(), bool(label))
        for batch in batches
        for path, anomaly_map, label in zip(batch.image_path, batch.anomaly_map, batch.pred_label, strict=True)
    }


def compare(name: str, expected: dict[str, Answer], predict: dict[str, Callable]) -> list[dict[str, Any]]:
    """One row a backend; on every image all of them take turns, so that their latencies can be compared."""
    differences: dict[str, list[float]] = {backend: [] for backend in predict}
    verdicts = dict.fromkeys(predict, 0)
    seconds: dict[str, list[float]] = {backend: [] for backend in predict}
    for path, (expected_map, expected_label) in expected.items():
        image = read_image(path, as_tensor=True)
        for backend, run in predict.items():
            run(image)  # brings its weights back into the caches
            start = time.perf_counter()
            anomaly_map, label = run(image)
            seconds[backend].append(time.perf_counter() - start)
            differences[backend].append(float(np.abs(anomaly_map - expected_map).max() / np.ptp(expected_map)))
            verdicts[backend] += label != expected_label
    machine = describe(torch.device("cpu"))
    return [
        {
            "dataset": name,
            "backend": backend,
            "images": len(expected),
            "map_difference": f"{max(differences[backend]):.2e}",
            "map_difference_median": f"{median(differences[backend]):.2e}",
            "verdicts_differ": verdicts[backend],
            "latency_ms_median": round(1e3 * median(seconds[backend]), 2),
            **{key: machine[key] for key in ("device", "device_name", "threads", "commit", "date")},
            "torch": torch.__version__,
        }
        for backend in predict
    ]


def write(path: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Replace the rows of a data set."""
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["dataset"] != name] + rows
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[-1], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Export, compare and write the table."""
    register()
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--name", required=True, help="name of the data set in the table")
    parser.add_subclass_arguments(AnomalibDataModule, "data", required=True)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "speed" / "export_parity.csv")
    arguments = parser.parse_args()
    datamodule = parser.instantiate_classes(arguments).data
    logging.getLogger("nncf").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        expected = reference(arguments.checkpoint, datamodule, Path(name))
        predict = exported(arguments.checkpoint, arguments.backends, Path(name))
        rows = compare(arguments.name, expected, predict)
    write(arguments.output, arguments.name, rows)
    for row in rows:
        print(*list(row.values())[:7], sep="\t")


if __name__ == "__main__":
    main()
