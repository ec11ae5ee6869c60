# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Refuses images that are no images in [0, 1]: any other range would give other scores without a word."""

from typing import Any

import torch
from torch import Tensor

TOLERANCE = 1e-3  # a resize may overshoot by rounding


def check_images_in_unit_range(images: Any) -> None:  # noqa: ANN401
    """Refuse what is not a batch of images in [0, 1]; exported and traced graphs do not look.

    Args:
        images (Any): What was given for images of shape ``(B, 3, H, W)``. Values that are not finite pass: they are
            judged anomalous.

    Raises:
        TypeError: If it is no tensor, as a NumPy array.
        ValueError: If it is no floating-point tensor of that shape with values in [0, 1].
    """
    if torch.compiler.is_exporting() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    if not isinstance(images, Tensor):
        msg = (
            f"Images must be a torch tensor of shape (B, 3, H, W) in [0, 1], got {type(images).__name__}; for an RGB "
            "array of shape (H, W, 3) and type uint8 give torch.from_numpy(array).permute(2, 0, 1)[None] / 255."
        )
        raise TypeError(msg)
    if images.ndim != 4 or images.shape[1] != 3:
        msg = f"Images must have the shape (B, 3, H, W), got {tuple(images.shape)}; a single image needs images[None]."
        raise ValueError(msg)
    if not images.is_floating_point():
        msg = f"Images must be floating-point in [0, 1], got {images.dtype}; give images / 255 for 8 bits a channel."
        raise ValueError(msg)
    if (((images < -TOLERANCE) | (images > 1 + TOLERANCE)) & images.isfinite()).any():
        finite = images[images.isfinite()]
        msg = (
            f"Images must lie in [0, 1], these go from {finite.min():.3g} to {finite.max():.3g}; divide 8-bit values "
            "by 255, and do not normalise for a backbone: the model does that itself."
        )
        raise ValueError(msg)
