# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Known defects: labelled training images with their masks."""

from collections.abc import Iterable

from anomalib.data import Batch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from .synthesis import Defect


def known_defects(batches: Iterable[Batch]) -> list[Defect]:
    """Keep known defects on the CPU, where anomalies are made.

    Args:
        batches (Iterable[Batch]): Defective images in [0, 1] of shape ``(B, 3, H, W)`` and their masks.

    Returns:
        list[Defect]: Image and mask of each.

    Raises:
        ValueError: If an image has no mask, or an empty one.
    """
    defects = []
    for batch in batches:
        for index, image in enumerate(batch.image.float().cpu()):
            name = batch.image_path[index] if batch.image_path else "without a file"
            if batch.gt_mask is None:
                msg = f"The known defect {name} has no mask, and PRN learns from masks; give mask_dir, or leave it out."
                raise ValueError(msg)
            mask = resize(batch.gt_mask[index][None], image.shape[-2:], InterpolationMode.NEAREST)[0].cpu() > 0
            if not mask.any():
                msg = (
                    f"The mask of the known defect {name} marks no pixel at {image.shape[-2]}x{image.shape[-1]}; "
                    "correct it, take a larger image_size, or leave the image out."
                )
                raise ValueError(msg)
            defects.append((image, mask))
    return defects
