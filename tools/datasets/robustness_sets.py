# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

r"""Make harder versions of a data set in the layout of MVTec AD: few normals, polluted normals, shifted test images.

    python tools/datasets/robustness_sets.py --data ../shared/data/mvtec_ad/screw --natural ../shared/data/natural \
        --out datasets/robustness
    anomalib-vmpfd benchmark --config configs/benchmark/robustness.yaml --root datasets/robustness

=====================  ===============================================================================================
normals-4, -16, -64    a random choice of the normals; a smaller one is part of a larger one
polluted-5, -10        so many per cent of the training images are defective ones, taken out of the test set
dimmer, brighter       test images at 0.9 and 1.1 times their brightness, training images as they are
dark, bright           the same at 0.7 and 1.3 times, where a light background is clipped to white
blurred                test images under a Gaussian of 1/256 of their width
natural                the photographs, which EfficientAd learns from as well
=====================  ===============================================================================================
"""

import argparse
import logging
import shutil
import stat
from pathlib import Path

import cv2
import numpy as np

logger = logging.getLogger("robustness_sets")
FEW = (4, 16, 64)
POLLUTED = (5, 10)
BRIGHTNESS = {"dark": 0.7, "dimmer": 0.9, "brighter": 1.1, "bright": 1.3}


def copied(source: Path, out: Path) -> Path:
    """Copy the data set; a copy that is there is replaced."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(source, out)
    for path in (out, *out.rglob("*")):
        path.chmod(path.stat().st_mode | stat.S_IWUSR)  # data are often read-only
    return out


def keep_few(folder: Path, order: list[str], count: int) -> None:
    """Keep the first ``count`` of the normals in ``order``."""
    for name in order[count:]:
        (folder / "train" / "good" / name).unlink()


def pollute(folder: Path, rng: np.random.Generator, percent: int) -> None:
    """Move defective test images among the normals until they are ``percent`` of the training images."""
    normals = sum(1 for _ in (folder / "train" / "good").iterdir())
    defective = sorted(p for p in (folder / "test").glob("*/*") if p.parent.name != "good")
    count = round(normals * percent / (100 - percent))
    for index in rng.permutation(len(defective))[:count]:
        image = defective[index]
        for mask in (folder / "ground_truth" / image.parent.name).glob(f"{image.stem}*"):
            mask.unlink()
        image.rename(folder / "train" / "good" / f"{image.parent.name}_{image.name}")


def shift(folder: Path, kind: str) -> None:
    """Change all test images."""
    for path in (folder / "test").glob("*/*"):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if kind == "blurred":
            changed = cv2.GaussianBlur(image, (0, 0), image.shape[1] / 256)
        else:
            changed = np.clip(image * BRIGHTNESS[kind], 0, 255).round().astype(np.uint8)
        cv2.imwrite(str(path), changed)


def main() -> None:
    """Read the command line and make all sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train, test and ground_truth")
    parser.add_argument("--natural", type=Path, required=True, help="folder with photographs in folders")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; one folder a set")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    normals = sorted(p.name for p in (arguments.data / "train" / "good").iterdir())
    order = [str(name) for name in np.random.default_rng(arguments.seed).permutation(normals)]
    for count in FEW:
        keep_few(copied(arguments.data, arguments.out / f"normals-{count}"), order, count)
    for percent in POLLUTED:
        folder = copied(arguments.data, arguments.out / f"polluted-{percent}")
        pollute(folder, np.random.default_rng(arguments.seed), percent)
    for kind in (*BRIGHTNESS, "blurred"):
        shift(copied(arguments.data, arguments.out / kind), kind)
    for folder in sorted(arguments.out.iterdir()):
        counts = [sum(1 for _ in folder.glob(f"{part}/*/*")) for part in ("train", "test")]
        logger.info(f"{folder}: {counts[0]} to learn, {counts[1]} to test")
    copied(arguments.natural, arguments.out / "natural")


if __name__ == "__main__":
    main()
