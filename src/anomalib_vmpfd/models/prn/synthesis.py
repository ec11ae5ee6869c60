# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Anomalies for training: known defects on normal images, and foreign textures in noise (section 3.4, appendix A.1)."""

import zlib
from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as T  # noqa: N812

from anomalib_vmpfd.nn.precision import full_float32

from .draws import choice, uniform
from .target_area import foreground, target_area
from .textures import perlin, random_texture, texture_files

ATTEMPTS = 10  # at a place for an anomaly; an image for which none is found stays normal
CELLS = 8  # a side, of an image that is shuffled
OPACITY = 0.8  # largest share beta of the normal image that shows through; DRAEM's
NOISE = 0.5  # Perlin noise above it is an anomaly; DRAEM's
ROTATION, SHEAR = 45.0, 20.0  # degrees, either way; the former is DRAEM's

TargetArea = Literal["part", "image"]
Defect = tuple[Tensor, Tensor]  # image (3, H, W) in [0, 1] and mask (H, W), bool


class Synthesis:
    """Make an anomalous image of every normal one.

    One half of the images gets an extended anomaly, from a known defect, the other half a simulated one; without known
    defects all of them. What an image gets depends on the image, the seed and the epoch alone, not on the batch that it
    is in.

    Of what is made from known defects, a share keeps their look: one half of it is the defective image itself in place
    of the normal one, the other half the defect moved onto the normal image. The paper changes the look of all of them.

    Args:
        textures (str | None): Folder with pictures of foreign textures; ``None`` generates textures.
        target_area (str): ``"part"`` puts anomalies on the part, where it is told from a background of one colour;
            ``"image"`` anywhere.
        unchanged (float): Share of what is made from known defects that keeps their look.

    Raises:
        ValueError: If the folder holds no picture.
    """

    def __init__(
        self,
        textures: str | None = None,
        target_area: TargetArea = "part",
        unchanged: float = 0.0,
    ) -> None:
        self.textures = texture_files(textures) if textures else []
        self.target_area = target_area
        self.unchanged = unchanged

    def __call__(self, images: Tensor, defects: Sequence[Defect], seed: int) -> tuple[Tensor, Tensor]:
        """Make anomalies.

        Args:
            images (Tensor): Normal images in [0, 1] of shape ``(B, 3, H, W)``.
            defects (Sequence[Defect]): Known defects, of the size of the images.
            seed (int): Seed of this epoch.

        Returns:
            tuple[Tensor, Tensor]: Images in [0, 1] of shape ``(B, 3, H, W)``, and where they are anomalous,
            ``(B, 1, H, W)``, 0 or 1. A pixel that is not anomalous is that of the normal image, or of the known
            defect's, where that takes its place.
        """
        made = []
        # pictures need full precision, and some of what changes them knows no other
        with torch.random.fork_rng(devices=[]), full_float32("cpu"):
            for image in images.detach().float().cpu():
                # of the CPU alone: torch.manual_seed notes a stack for every kind of device
                torch.default_generator.manual_seed(zlib.crc32(image.numpy().tobytes(), seed % 2**32))
                made.append(self._anomalous(image, defects))
        anomalous, masks = (torch.stack(each) for each in zip(*made, strict=True))
        return anomalous.to(images), masks[:, None].to(images)

    def _anomalous(self, normal: Tensor, defects: Sequence[Defect]) -> tuple[Tensor, Tensor]:
        part = foreground(normal) if self.target_area == "part" else torch.ones(normal.shape[-2:], dtype=torch.bool)
        for _ in range(ATTEMPTS):
            area = target_area(part)
            beta = uniform(0, OPACITY)
            if defects and choice(2):
                defect = defects[choice(len(defects))]
                changed = uniform(0, 1) >= self.unchanged
                if not changed and choice(2):
                    return defect
                source, mask = extended(defect, area, changed)
                beta = beta if changed else 0.0
            else:
                source, mask = simulated(normal, area, self.textures)
            if mask.any():
                return blended(normal, source, mask, beta), mask
        return normal, torch.zeros_like(part)


def blended(normal: Tensor, source: Tensor, mask: Tensor, beta: float) -> Tensor:
    """An anomaly on a normal image, equations 4 and 6: ``~M N + (1 - beta) M A + beta M N``.

    Args:
        normal (Tensor): ``N``, ``(3, H, W)``.
        source (Tensor): ``A``, ``(3, H, W)``.
        mask (Tensor): ``M``, bool, ``(H, W)``.
        beta (float): Opacity of the normal image.

    Returns:
        Tensor: ``E`` or ``S``, ``(3, H, W)``.
    """
    return torch.where(mask, (1 - beta) * source + beta * normal, normal)


def extended(defect: Defect, area: Tensor, changed: bool = True) -> tuple[Tensor, Tensor]:
    """Another look of a known defect, rotated, sheared and moved to the target area (figure 5).

    Args:
        defect (Defect): Image and mask of the known defect.
        area (Tensor): Target area, bool, ``(H, W)``, with any pixel.
        changed (bool): Whether its look changes, or its place alone.

    Returns:
        tuple[Tensor, Tensor]: Image ``(3, H, W)`` and mask ``M``, bool, ``(H, W)``, empty where they do not meet.
    """
    image, mask = defect
    place, own = (each.nonzero() for each in (area, mask))
    row, column = own[choice(len(own))].tolist()
    to_row, to_column = place[choice(len(place))].tolist()
    moved = {
        "angle": uniform(-ROTATION, ROTATION),
        "translate": [to_column - column, to_row - row],
        "scale": 1.0,
        "shear": [uniform(-SHEAR, SHEAR), uniform(-SHEAR, SHEAR)],
        "center": [float(column), float(row)],
    }
    looks = T.affine(appearance(image) if changed else image, interpolation=InterpolationMode.BILINEAR, **moved)
    return looks, (T.affine(mask[None].float(), **moved)[0] > 0.5) & area


def simulated(normal: Tensor, area: Tensor, textures: Sequence) -> tuple[Tensor, Tensor]:
    """Perlin noise in the target area, filled with a foreign texture or with the normal image, shuffled (figure 7).

    Args:
        normal (Tensor): Normal image ``(3, H, W)``.
        area (Tensor): Target area, bool, ``(H, W)``.
        textures (Sequence): Files of foreign textures.

    Returns:
        tuple[Tensor, Tensor]: Image ``A``, ``(3, H, W)``, and mask ``M``, bool, ``(H, W)``.
    """
    size = (normal.shape[-2], normal.shape[-1])
    mask = (perlin(size) > NOISE) & area
    if choice(2):
        return appearance(random_texture(list(textures), size)), mask
    return shuffled(appearance(normal)), mask


def appearance(image: Tensor) -> Tensor:
    """Two of seven changes of appearance, Aug_1 of figure 5."""
    for index in torch.randperm(len(_APPEARANCES))[:2].tolist():
        image = _APPEARANCES[index](image)
    return image


def shuffled(image: Tensor) -> Tensor:
    """The image cut into 8 x 8 cells, as far as they divide it, in another order."""
    rows, columns = (CELLS if side % CELLS == 0 else 1 for side in image.shape[-2:])
    cells = rearrange(image, "c (i h) (j w) -> (i j) c h w", i=rows, j=columns)
    return rearrange(cells[torch.randperm(len(cells))], "(i j) c h w -> c (i h) (j w)", i=rows)


_APPEARANCES = (
    T.equalize,
    lambda image: T.solarize(image, uniform(0.125, 0.5)),  # DRAEM's
    lambda image: T.posterize(image, 2 + choice(4)),
    lambda image: T.adjust_sharpness(image, uniform(0, 4)),
    T.autocontrast,
    T.invert,
    lambda image: T.adjust_gamma(image, uniform(0.5, 2)),  # DRAEM's
)
