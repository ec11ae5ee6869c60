# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Make development sets to choose defaults on: held-out normal training images, with synthetic defects planted in them.

    python tools/datasets/development_sets.py --data ../shared/data --out datasets/development --seed 0

Not one test image takes part. Of the normal training images a quarter (80 at the most) is held out as new normals,
whole parts with all their pictures: magnetic tiles were taken six times in different light, KolektorSDD's commutators
from eight sides, and a part whose other pictures are learnt is not new. Each of the held-out images also gets two
planted defects, of seven kinds in turn: six from 3 % to 30 % of the image's shorter side, on the part and not on the
background, and one for which two normal images are put together, each half normal by itself. The folders look as MVTec
AD does. Pixels are taken from the image itself, from another normal one or, for ``texture``, from photographs in
``natural``.
"""

import argparse
import logging
import shutil
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator
from scipy import ndimage

logger = logging.getLogger("development_sets")
SETS = {
    "screw": "mvtec_ad/screw",
    "magnetic_tile": "magnetic_tile",
    "kolektorsdd": "kolektorsdd",
    "juice_bottle": "mvtec_loco/juice_bottle",
}
HELD_OUT, MOST_HELD_OUT, DEFECTS = 0.25, 80, 2
# Names of MagneticTile end in the time of the picture: those of one tile follow each other within seconds.
SAME_TILE = 100
SIDES = 8  # of a commutator, numbered on
FOREGROUND = 64  # cells a side of the map that says where the part is

LOCAL = ("texture", "cutpaste", "scratch", "warp", "erase", "misplace")

Image = np.ndarray  # (H, W, 3), float32 in [0, 1]


class Planter:
    """Plant defects in normal images of one set.

    Args:
        others (list[Image]): Other normal images of the set.
        textures (Path): Folder with photographs.
        rng (np.random.Generator): Source of every choice.
    """

    def __init__(self, others: list[Image], textures: Path, rng: np.random.Generator) -> None:
        self.others = others
        self.rng = rng
        self.perlin = PerlinAnomalyGenerator(textures, probability=1.0, blend_factor=(0.1, 0.7))
        self.kinds = {kind: getattr(self, kind) for kind in (*LOCAL, "chimera")}

    def plant(self, image: Image, kind: str) -> tuple[Image, Image]:
        """Plant a defect that can be seen.

        Args:
            image (Image): Normal image.
            kind (str): One of :attr:`kinds`.

        Returns:
            tuple[Image, Image]: The image with its defect, and the mask, ``(H, W)`` of bool.
        """
        for _ in range(50):
            defect = np.clip(self.kinds[kind](image), 0, 1).astype(np.float32)
            change = cv2.GaussianBlur(np.abs(defect - image).max(2), (0, 0), 0.004 * min(image.shape[:2]))
            mask = (change > 0.06).astype(np.uint8)
            mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0
            if mask.mean() > 5e-4 and change[mask].mean() > 0.08:
                return defect, mask
        return defect, mask

    def texture(self, image: Image) -> Image:
        """Perlin-shaped patches of a foreign texture (DRAEM), by anomalib's generator."""
        top, left, height, width = self._box(image, 0.06, 0.3)
        out = image.copy()
        # the generator draws noise of up to 64 cells a side, which smaller crops cannot hold
        crop = cv2.resize(image[top : top + height, left : left + width], (max(width, 64), max(height, 64)))
        changed, _ = self.perlin(torch.from_numpy(crop.transpose(2, 0, 1).copy()))
        changed = cv2.resize(changed.numpy().transpose(1, 2, 0), (width, height))
        if np.abs(image[..., 0] - image[..., 2]).max() < 0.02:
            changed = changed.mean(2, keepdims=True).repeat(3, 2)
        out[top : top + height, left : left + width] = changed
        return out

    def cutpaste(self, image: Image) -> Image:
        """A piece of the image somewhere else (CutPaste)."""
        top, left, height, width = self._box(image, 0.04, 0.2)
        y, x = self._place(image, height, width)
        return self._blend(image, np.roll(image, (top - y, left - x), (0, 1)), top, left, height, width)

    def scratch(self, image: Image) -> Image:
        """A thin bent line, darker or brighter."""
        side = min(image.shape[:2])
        y, x = self._place(image, 1, 1)
        angle = self.rng.uniform(0, 2 * np.pi)
        points = [(x, y)]
        for _ in range(int(self.rng.uniform(10, 40))):
            angle += self.rng.normal(0, 0.12)
            points.append((points[-1][0] + 0.01 * side * np.cos(angle), points[-1][1] + 0.01 * side * np.sin(angle)))
        line = np.zeros(image.shape[:2], np.uint8)
        width = max(1, round(self.rng.uniform(0.004, 0.015) * side))
        cv2.polylines(line, [np.round(points).astype(np.int32)], False, 255, width, cv2.LINE_AA)  # noqa: FBT003
        return image + line[..., None] / 255 * self.rng.choice([-1, 1]) * self.rng.uniform(0.12, 0.4)

    def warp(self, image: Image) -> Image:
        """A dent: the surface pushed aside."""
        side = min(image.shape[:2])
        y, x = self._place(image, 1, 1)
        radius = self.rng.uniform(0.03, 0.1) * side
        angle, push = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(0.5, 0.9) * radius
        rows, columns = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
        bump = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * radius**2)).astype(np.float32)
        return cv2.remap(
            image,
            columns + np.float32(push * np.cos(angle)) * bump,
            rows + np.float32(push * np.sin(angle)) * bump,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )

    def erase(self, image: Image) -> Image:
        """Something that should be there is missing: filled in from around it."""
        top, left, height, width = self._box(image, 0.05, 0.25)
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[top : top + height, left : left + width] = 1
        filled = cv2.inpaint((image * 255).astype(np.uint8), mask, 5, cv2.INPAINT_TELEA)
        return np.where(mask[..., None] > 0, filled.astype(np.float32) / 255, image)

    def misplace(self, image: Image) -> Image:
        """Normal pieces in the wrong place: mirrored, shifted, or of another normal image."""
        top, left, height, width = self._box(image, 0.15, 0.4)
        choice = self.rng.integers(3)
        if choice == 0:
            moved = image[::-1] if self.rng.random() < 0.5 else image[:, ::-1]
        elif choice == 1:
            shift = self.rng.choice([-1, 1], 2) * self.rng.uniform(0.04, 0.12, 2) * min(image.shape[:2])
            moved = np.roll(image, np.round(shift).astype(int), (0, 1))
        else:
            moved = cv2.resize(self.others[self.rng.integers(len(self.others))], image.shape[1::-1])
        return self._blend(image, moved, top, left, height, width)

    def chimera(self, image: Image) -> Image:
        """One part of this image and the other of another normal one, which do not belong together."""
        other = cv2.resize(self.others[self.rng.integers(len(self.others))], image.shape[1::-1])
        share = self.rng.uniform(0.25, 0.5)
        height, width = image.shape[:2]
        if self.rng.random() < 0.5:
            box = (0 if self.rng.random() < 0.5 else int(height * (1 - share)), 0, int(height * share), width)
        else:
            box = (0, 0 if self.rng.random() < 0.5 else int(width * (1 - share)), height, int(width * share))
        return self._blend(image, other, *box)

    def _box(self, image: Image, smallest: float, largest: float) -> tuple[int, int, int, int]:
        side = min(image.shape[:2])
        height, width = (side * np.exp(self.rng.uniform(np.log(smallest), np.log(largest), 2))).astype(int)
        return *self._place(image, height, width), int(height), int(width)

    def _place(self, image: Image, height: int, width: int) -> tuple[int, int]:
        """Upper left corner of a box around a point of the part."""
        rows, columns = np.nonzero(foreground(image))
        point = self.rng.integers(len(rows))
        y = (rows[point] + 0.5) / FOREGROUND * image.shape[0] - height / 2
        x = (columns[point] + 0.5) / FOREGROUND * image.shape[1] - width / 2
        return (
            int(np.clip(y, 0, image.shape[0] - height)),
            int(np.clip(x, 0, image.shape[1] - width)),
        )

    @staticmethod
    def _blend(image: Image, piece: Image, top: int, left: int, height: int, width: int) -> Image:
        """Paste a box with an edge that is a pixel or two soft."""
        mask = np.zeros(image.shape[:2], np.float32)
        mask[top : top + height, left : left + width] = 1
        mask = cv2.GaussianBlur(mask, (0, 0), 0.003 * min(image.shape[:2]))[..., None]
        return image * (1 - mask) + piece * mask


def foreground(image: Image) -> np.ndarray:
    """Where the part is: what has structure or is surrounded by it, ``(FOREGROUND, FOREGROUND)`` of bool.

    A defect of a part is on the part. Planted in an empty background it would reward whatever watches empty places.
    """
    grey = cv2.resize(image.mean(2), (FOREGROUND, FOREGROUND), interpolation=cv2.INTER_AREA)
    mean = cv2.blur(grey, (5, 5))
    structure = np.sqrt(np.maximum(cv2.blur(grey * grey, (5, 5)) - mean * mean, 0))
    margin = 4
    edges = np.pad(structure >= 0.15 * np.quantile(structure, 0.99), margin)
    closed = ndimage.binary_closing(edges, iterations=margin - 1)[margin:-margin, margin:-margin]
    return ndimage.binary_fill_holes(closed)


def parts(paths: list[Path], name: str) -> list[list[int]]:
    """Which of the images show the same part: lists of indices."""
    if name not in {"magnetic_tile", "kolektorsdd"}:
        return [[index] for index in range(len(paths))]
    numbers = [int(path.stem.rsplit("_", 1)[-1]) for path in paths]
    order = sorted(range(len(paths)), key=numbers.__getitem__)
    groups = [[order[0]]]
    for before, index in pairwise(order):
        a, b = numbers[before], numbers[index]
        same = b - a < SAME_TILE if name == "magnetic_tile" else a // SIDES == b // SIDES
        groups[-1].append(index) if same else groups.append([index])
    return groups


def make_set(source: Path, out: Path, textures: Path, seed: int) -> None:
    """Write one development set.

    Args:
        source (Path): Folder with ``train/good``.
        out (Path): Folder to make; replaced if it exists.
        textures (Path): Folder with photographs.
        seed (int): Seed of the held-out images and of the defects.
    """
    paths = sorted(p for p in (source / "train" / "good").iterdir() if p.suffix.lower() in {".png", ".jpg"})
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    groups = parts(paths, out.name)
    order = [index for group in rng.permutation(len(groups)) for index in groups[group]]
    count = min(MOST_HELD_OUT, round(HELD_OUT * len(paths)))
    held_out = order[:count]
    # the rest of a part that is held out in part is neither
    begun = next(group for group in groups if order[count - 1] in group)
    learnt = [index for index in order[count:] if index not in begun]
    shutil.rmtree(out, ignore_errors=True)
    for folder in ("train/good", "test/good"):
        (out / folder).mkdir(parents=True)
    for index in learnt:
        shutil.copy(paths[index], out / "train" / "good")
    images = [cv2.cvtColor(cv2.imread(str(paths[i])), cv2.COLOR_BGR2RGB).astype(np.float32) / 255 for i in held_out]
    planter = Planter(images, textures, rng)
    kinds = list(planter.kinds)
    for number, (index, image) in enumerate(zip(held_out, images, strict=True)):
        shutil.copy(paths[index], out / "test" / "good")
        for repeat in range(DEFECTS):
            kind = kinds[(number + repeat * len(kinds) // DEFECTS) % len(kinds)]
            defect, mask = planter.plant(image, kind)
            name = f"{paths[index].stem}_{repeat}.png"
            for folder, pixels in (("test", defect[..., ::-1] * 255), ("ground_truth", mask * 255.0)):
                (out / folder / kind).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(out / folder / kind / name), pixels.round().astype(np.uint8))
    logger.info(f"{out}: {len(learnt)} to learn, {count} new normals, {DEFECTS * count} with defects")


def main() -> None:
    """Read the command line and make all four sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets and `natural`")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; one folder a set")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name, folder in SETS.items():
        make_set(arguments.data / folder, arguments.out / name, arguments.data / "natural", arguments.seed)


if __name__ == "__main__":
    main()
