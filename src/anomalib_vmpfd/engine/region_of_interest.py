# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A region of interest: what lies outside is never seen."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F  # noqa: N812

from anomalib_vmpfd.anomaly.raw_map import RawMap

OUTSIDE = 0.5  # what stands in an image for all that lies outside


class RegionError(ValueError):
    """A region of interest that cannot be used; the message names the file and the cure."""


def read_region(path: str | Path, size: Sequence[int]) -> Tensor:
    """Read a mask and keep of it the pixels into which nothing from outside is mixed when images are resized.

    Args:
        path (str | Path): Picture whose pixels are above 0 inside, in the shape of the images.
        size (Sequence[int]): Height and width that images are resized to.

    Returns:
        Tensor: Boolean, ``(1, 1, H, W)``, true inside.

    Raises:
        RegionError: If the file cannot be read, or nothing is left inside.
    """
    try:
        with Image.open(path) as picture:
            inside = F.pil_to_tensor(picture.convert("RGB")).amax(0, keepdim=True)[None] > 0
    except (OSError, UnidentifiedImageError) as error:
        folder = " It is one picture for all images, not a folder." if Path(path).is_dir() else ""
        msg = f"The region of interest {path} cannot be read as a picture ({error}).{folder}"
        raise RegionError(msg) from error
    region = F.resize(inside.float(), list(size), antialias=True) > 1 - 1e-4
    if not region.any():
        msg = f"The region of interest {path} is empty at {size[0]} x {size[1]} pixels; inside, its pixels are above 0."
        raise RegionError(msg)
    return region


def only_inside(images: Tensor, region: Tensor | None) -> Tensor:
    """Images ``(B, C, H, W)`` of which nothing is to be seen outside of a region; the same without one."""
    return images if region is None else torch.where(region.to(images.device), images, images.new_tensor(OUTSIDE))


def calibrate_inside(model: nn.Module, region: Tensor | None) -> None:
    """Let the maps of a model take their scales from a region ``(1, 1, H, W)`` alone; from everywhere without one."""
    for each in model.modules():
        if isinstance(each, RawMap):
            each.look_at(None if region is None else region[0, 0])


def zero_outside(maps: Tensor, region: Tensor | None) -> Tensor:
    """Maps ``(B, 1, H, W)`` or ``(B, H, W)`` that are 0 outside of a region; the same without one."""
    if region is None:
        return maps
    region = region.to(maps.device)
    return torch.where(region if maps.ndim == 4 else region[:, 0], maps, maps.new_zeros(()))
