# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Do the exports of a checkpoint give the same answers? Over runtimes, precisions, sizes, batches and readers.

    python tools/release/export_parity.py --checkpoint model.ckpt --name screw --data <folder of test images>

The checkpoint is exported to ONNX and to OpenVINO, once for images of any size and once for those of each size below.
The rows of the data set in ``results/speed/export_parity.csv`` are replaced. The reference is the checkpoint in PyTorch
on the same pixels, read with Pillow and one image at a time.

===========  =========================================================================================================
column       values
===========  =========================================================================================================
export       ``free`` or ``fixed`` size of the images
runtime      ONNX Runtime, OpenVINO
precision    what it computes in. ``bf16, rounded`` and ``f16, rounded``: ONNX Runtime on a graph whose every result is
             rounded, without the marks by which the OpenVINO file asks for float32. OpenVINO computes in what the
             processor has: float32, and ``bf16`` and ``f16`` where that is more
size         images as they lie on the disk, or resized first to a width and height
batch        images at once
reader       Pillow or OpenCV
===========  =========================================================================================================

``map_difference`` is the largest difference of a map over the range of the reference's map of that image, and
``verdicts_differ`` counts images that are called normal by one and anomalous by the other.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from anomalib.data.utils.image import get_image_filenames_from_dir
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.benchmark.run.environment import describe
from anomalib_vmpfd.decide.export_check import READERS
from anomalib_vmpfd.decide.runtimes import Answer, Checkpoint, Exported, Precision
from anomalib_vmpfd.files import replace_rows

ROOT = Path(__file__).parents[2]
SIZES: tuple[tuple[int, int] | None, ...] = (None, (480, 640), (900, 300))
RUNTIMES = ("onnx", "openvino")
PRECISIONS: tuple[Precision, ...] = ("f32", "bf16", "f16")
Images = list[np.ndarray]


def read(files: list[Path], reader: str, size: tuple[int, int] | None) -> Images:
    """Images in [0, 1], ``(3, H, W)``, resized where a size is given."""
    images = [READERS[reader](path, deep=False) for path in files]
    if size is None:
        return images
    return [
        F.interpolate(torch.from_numpy(each)[None], size, mode="bilinear", antialias=True)[0].numpy() for each in images
    ]


def compared(exported: Exported, images: Images, expected: list[Answer], batch: int) -> dict[str, Any]:
    """Differences of an export in batches of images of one size, and its latency for an image."""
    answers, seconds = [], []
    for start in range(0, len(images), batch):
        part = np.stack(images[start : start + batch])
        began = time.perf_counter()
        answers += exported.answers(part)
        seconds.append((time.perf_counter() - began) / len(part))
    pairs = list(zip(answers, expected, strict=True))
    maps = [float(np.abs(a.anomaly_map - b.anomaly_map).max() / np.ptp(b.anomaly_map)) for a, b in pairs]
    return {
        "images": len(images),
        "score_difference": f"{max(abs(a.score - b.score) for a, b in pairs):.2e}",
        "map_difference": f"{max(maps):.2e}",
        "map_difference_median": f"{median(maps):.2e}",
        "verdicts_differ": sum(a.label != b.label for a, b in pairs),
        "latency_ms_median": round(1e3 * median(seconds), 2),
    }


def rows(
    checkpoint: Path, files: list[Path], folder: Path, runtimes: list[str], fixed: bool
) -> Iterator[dict[str, Any]]:
    """One row for each combination."""
    reference = Checkpoint(checkpoint)
    export = {"onnx": reference.model.to_onnx, "openvino": reference.model.to_openvino}
    free = {runtime: export[runtime](folder / "free") for runtime in runtimes}
    for size in SIZES:
        images = read(files, "Pillow", size)
        expected = [reference(image) for image in images]
        same_size = len({image.shape for image in images}) == 1
        of_kind = {("free", runtime): path for runtime, path in free.items()}
        if fixed and same_size:
            shape = images[0].shape[1:]
            for runtime in runtimes:
                of_kind["fixed", runtime] = export[runtime](folder / f"{shape[0]}x{shape[1]}", input_size=shape)
        for (kind, _), path in of_kind.items():
            known: set[str] = set()
            for precision in PRECISIONS:
                exported = Exported(path, precision)
                if exported.precision in known:
                    continue
                known.add(exported.precision)
                cases = [("Pillow", batch) for batch in ((1, 4) if same_size else (1,))]
                # what a decoder changes has to do with files alone
                cases += [("OpenCV", 1)] if size is None else []
                for reader, batch in cases:
                    given = images if reader == "Pillow" else read(files, reader, size)
                    seen = compared(exported, given, expected, batch)
                    yield {
                        "export": kind,
                        "runtime": exported.runtime,
                        "precision": exported.precision,
                        "size": "as on the disk" if size is None else f"{size[1]} x {size[0]}",
                        "batch": batch,
                        "reader": reader,
                        **seen,
                    }


def main() -> None:
    """Export, compare and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--name", required=True, help="name of the data set in the table")
    parser.add_argument("--data", type=Path, required=True, help="folder with images, also in folders below")
    parser.add_argument("--every", type=int, default=1, help="take every n-th image (%(default)s)")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=RUNTIMES)
    parser.add_argument("--free-only", action="store_true", help="leave exports of a fixed size out")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "speed" / "export_parity.csv")
    arguments = parser.parse_args()
    machine = describe(torch.device("cpu"))
    conditions = {key: machine[key] for key in ("device", "device_name", "threads", "commit", "date")}
    files = get_image_filenames_from_dir(arguments.data)[:: arguments.every]
    table = []
    with tempfile.TemporaryDirectory() as folder:
        given = arguments.checkpoint, files, Path(folder), arguments.runtimes, not arguments.free_only
        for row in rows(*given):
            print(*row.values(), sep="\t", flush=True)
            table.append({"dataset": arguments.name} | row | conditions | {"torch": torch.__version__})
    replace_rows(arguments.output, table, ("dataset",))


if __name__ == "__main__":
    main()
