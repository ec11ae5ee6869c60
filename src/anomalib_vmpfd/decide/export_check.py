# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-vmpfd check-export``: does an export judge every image as its checkpoint does?"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from anomalib.data.utils.image import get_image_filenames_from_dir, read_image

from anomalib_vmpfd.engine.deep_images import WHITE, read_deep
from anomalib_vmpfd.engine.image_errors import refuse_deep_images
from anomalib_vmpfd.files import write_atomically

from .command import run_command
from .runtimes import Answer, Checkpoint, Exported, Precision

SHOWN = 5


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv (list[str]): Arguments after ``check-export``.

    Returns:
        int: 0 when all verdicts are the same, 1 when one differs, 2 when nothing could be compared.
    """
    return run_command("check-export", check_export, argv, _judged)


def _judged(report: dict[str, Any]) -> int:
    sys.stdout.write(summary(report))
    return int(any(each["verdicts_differ"] for each in report["readers"].values()))


def check_export(
    ckpt_path: Path,
    export: Path,
    data: Path,
    output: Path | None = None,
    precision: Precision | None = None,
) -> dict[str, Any]:
    """Compare scores, labels and maps of an export with those of its checkpoint, image by image.

    Args:
        ckpt_path (Path): The checkpoint. It reads images with Pillow, as in training.
        export (Path): The ``.onnx`` or ``.xml`` file. It is given every image twice: read with Pillow and with OpenCV.
        data (Path): Folder with images, also in folders below.
        output (Path | None): JSON file for the report.
        precision (str | None): What the export computes in, see :class:`Exported`; ``None`` is its runtime's default.

    Returns:
        dict[str, Any]: Runtime and its precision, the largest differences, latencies and differing images by reader,
            and a row for each image. Differences of maps are relative to the range of the checkpoint's map.

    Raises:
        ValueError: If the checkpoint is of no model of this package, or there is no image.
        FileNotFoundError: If the export is not there.
    """
    exported = Exported(export, precision)
    files = get_image_filenames_from_dir(data)
    checkpoint = Checkpoint(ckpt_path)
    if not checkpoint.reads_deep:
        refuse_deep_images(files)
    rows = [_compared(path, checkpoint, exported) for path in files]
    report = {
        "checkpoint": str(ckpt_path),
        "export": str(export),
        "runtime": exported.runtime,
        "precision": exported.precision,
        "images": len(files),
        "latency_ms_median": {
            "checkpoint": median(row["checkpoint"]["latency_ms"] for row in rows),
            **{name: median(row[name]["latency_ms"] for row in rows) for name in READERS},
        },
        "readers": {name: _differences(name, rows) for name in READERS},
        "rows": rows,
    }
    if output is not None:
        write_atomically(output, (json.dumps(report, indent=2) + "\n").encode())
    return report


def summary(report: dict[str, Any]) -> str:
    """A report as a few lines of text."""
    lines = [f"{report['export']} in {report['runtime']}, {report['precision']}, on {report['images']} images:"]
    for name, seen in report["readers"].items():
        lines.append(
            f"read with {name}: {seen['verdicts_differ']} verdicts differ; scores by up to "
            f"{seen['score_difference']:.2g}, maps by up to {seen['map_difference']:.2g} of their range; "
            f"{report['latency_ms_median'][name]:.0f} ms an image"
        )
        shown = seen["differing"][:SHOWN]
        lines += [f"  {path}" for path in shown]
        if more := len(seen["differing"]) - len(shown):
            lines.append(f"  and {more} more")
    return "\n".join([*lines, f"checkpoint: {report['latency_ms_median']['checkpoint']:.0f} ms an image", ""])


def _with_pillow(path: Path, deep: bool) -> np.ndarray:
    return (read_deep(path) if deep else read_image(path, as_tensor=True)).numpy()


def _with_opencv(path: Path, deep: bool) -> np.ndarray:
    # imread cannot open names that are not ASCII on every system
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR | (cv2.IMREAD_ANYDEPTH if deep else 0))
    if image is None:
        msg = f"OpenCV cannot read {path}; convert it, or leave it out."
        raise ValueError(msg)
    return np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1), dtype=np.float32) / (WHITE if deep else 255)


READERS: dict[str, Callable[[Path, bool], np.ndarray]] = {"Pillow": _with_pillow, "OpenCV": _with_opencv}


def _compared(path: Path, checkpoint: Checkpoint, exported: Exported) -> dict[str, Any]:
    """Row of one image."""
    expected, milliseconds = _timed(checkpoint, READERS["Pillow"](path, checkpoint.reads_deep))
    row: dict[str, Any] = {"path": str(path), "checkpoint": _plain(expected, milliseconds)}
    spread = float(np.ptp(expected.anomaly_map)) or 1.0
    for name, read in READERS.items():
        answer, milliseconds = _timed(exported, read(path, checkpoint.reads_deep))
        difference = float(np.abs(answer.anomaly_map - expected.anomaly_map).max()) / spread
        row[name] = {**_plain(answer, milliseconds), "map_difference": difference}
    return row


def _timed(run: Callable[[np.ndarray], Answer], image: np.ndarray) -> tuple[Answer, float]:
    start = time.perf_counter()
    answer = run(image)
    return answer, 1e3 * (time.perf_counter() - start)


def _plain(answer: Answer, milliseconds: float) -> dict[str, Any]:
    return {"score": answer.score, "label": answer.label, "latency_ms": milliseconds}


def _differences(reader: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    differing = [row["path"] for row in rows if row[reader]["label"] != row["checkpoint"]["label"]]
    return {
        "score_difference": max(abs(row[reader]["score"] - row["checkpoint"]["score"]) for row in rows),
        "map_difference": max(row[reader]["map_difference"] for row in rows),
        "verdicts_differ": len(differing),
        "differing": differing,
    }
