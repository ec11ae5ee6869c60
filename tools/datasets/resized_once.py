# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

r"""Copy data sets with their training images already resized, for trainings of hundreds of epochs.

    python tools/datasets/resized_once.py --data ../shared/data --out datasets/resized --size 256
    anomalib-vmpfd benchmark --config configs/benchmark/paper.yaml --root datasets/resized

Whatever lies below a folder ``train`` is resized as the preprocessing of this package's models does at every epoch, and
written as PNG, which rounds to 256 levels. Everything else is copied as it is: test images keep their pixels.
"""

import argparse
import logging
import shutil
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
from anomalib.data.utils import read_image
from torchvision.io import write_png
from torchvision.transforms.v2.functional import resize

logger = logging.getLogger("resized_once")


def copy(path: Path, data: Path, out: Path, size: int) -> None:
    """Copy a file, resized if it is a training image."""
    inside = path.relative_to(data)
    target = out / inside
    target.parent.mkdir(parents=True, exist_ok=True)
    if "train" not in inside.parts:
        shutil.copyfile(path, target)
        return
    torch.set_num_threads(1)
    image = read_image(path, as_tensor=True)
    small = resize(image, [size, size], antialias=True)
    write_png((small * 255).round().to(torch.uint8), str(target.with_suffix(".png")))


def main() -> None:
    """Read the command line and copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets in the layout of MVTec AD")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--size", type=int, default=256, help="pixels a side of a training image (%(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.out.exists():
        parser.error(f"{arguments.out} exists; name a new folder, or remove it.")
    paths = sorted(path for path in arguments.data.rglob("*") if path.is_file())
    if not any("train" in path.relative_to(arguments.data).parts for path in paths):
        parser.error(f"{arguments.data} holds no folder 'train' with images.")
    written = Counter(path.with_suffix("") for path in paths if "train" in path.relative_to(arguments.data).parts)
    if twins := [path for path in paths if written[path.with_suffix("")] > 1]:
        parser.error(f"{twins[0]} and its namesake would become one PNG; rename one of them.")
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(copy, data=arguments.data, out=arguments.out, size=arguments.size), paths, chunksize=16))
    logger.info("%d files in %s", len(paths), arguments.out)


if __name__ == "__main__":
    main()
