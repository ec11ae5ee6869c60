# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Checks that images fit the patches of an encoder."""

from torch import Tensor


def nearest_size(height: float, width: float, multiple: int) -> tuple[int, int]:
    """Round both sides to multiples, to one at least.

    Args:
        height (float): Height in pixels.
        width (float): Width in pixels.
        multiple (int): What the sides become multiples of.

    Returns:
        tuple[int, int]: Height and width in pixels.
    """
    return max(multiple, multiple * round(height / multiple)), max(multiple, multiple * round(width / multiple))


def check_image_size(image_size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Return the image size as a tuple, or say how to make it fit the patches."""
    height, width = image_size
    if height % patch_size or width % patch_size or min(height, width) < patch_size:
        nearest = nearest_size(height, width, patch_size)
        msg = (
            f"The image size {height}x{width} is not a multiple of the patch size {patch_size}; "
            f"use {nearest[0]}x{nearest[1]} or another patch size."
        )
        raise ValueError(msg)
    return height, width


def check_images(images: Tensor, image_size: tuple[int, int]) -> None:
    """Refuse images of another size than the encoder was built for."""
    if images.shape[-2:] != image_size:
        msg = (
            f"The encoder was built for images of {image_size[0]}x{image_size[1]} pixels and got "
            f"{images.shape[-2]}x{images.shape[-1]}; resize the images in the pre-processor or build the model with "
            "this image size."
        )
        raise ValueError(msg)
