# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Differences between an image and its reconstruction: structure and colour (section 2.6).

Multi-scale gradient magnitude similarity (MSGMS): Zavrtanik et al., "Reconstruction by inpainting for visual anomaly
detection", Pattern Recognition 112, 2021.
"""

import torch
from kornia.color import rgb_to_grayscale, rgb_to_lab
from kornia.filters import box_blur
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

SCALES = 4
GMS_CONSTANT = 0.0026  # of the similarity of gradients, for intensities in [0, 1]
STRUCTURE_WINDOW, COLOUR_WINDOW = 21, 11


def gradient_magnitude(grey: Tensor) -> Tensor:
    """Magnitude of the Prewitt gradient of grey images ``(B, 1, H, W)``."""
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    # a difference across two pixels, averaged over three
    vertical = F.avg_pool2d(padded[..., 2:, :] - padded[..., :-2, :], (1, 3), stride=1)
    horizontal = F.avg_pool2d(padded[..., 2:] - padded[..., :-2], (3, 1), stride=1)
    return (vertical.square() + horizontal.square() + 1e-12).sqrt()


def msgms(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Multi-scale gradient magnitude similarity, the mean of that at full, half, quarter and eighth resolution.

    Args:
        images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``, with at least 8 pixels a side.
        reconstructions (Tensor): Their reconstructions, of the same shape.

    Returns:
        Tensor: Similarity in [0, 1] of every pixel, ``(B, 1, H, W)``; 1 where the gradients are the same.
    """
    x, x_hat = rgb_to_grayscale(images), rgb_to_grayscale(reconstructions)
    size = x.shape[-2:]
    similarities = []
    for scale in range(SCALES):
        if scale:
            x, x_hat = F.avg_pool2d(x, 2), F.avg_pool2d(x_hat, 2)
        g, g_hat = gradient_magnitude(x), gradient_magnitude(x_hat)
        gms = (2 * g * g_hat + GMS_CONSTANT) / (g.square() + g_hat.square() + GMS_CONSTANT)
        similarities.append(F.interpolate(gms, size=size, mode="bilinear", align_corners=False) if scale else gms)
    return torch.stack(similarities).mean(0)


def structure_difference(images: Tensor, reconstructions: Tensor) -> Tensor:
    """``G_MSGM``, one less the smoothed MSGMS, ``(B, 1, H, W)``, equation 7; arguments as those of :func:`msgms`."""
    return 1 - box_blur(msgms(images, reconstructions), STRUCTURE_WINDOW, separable=True)


def colour_difference(images: Tensor, reconstructions: Tensor) -> Tensor:
    """``G_c``, the smoothed squared distance in CIELAB, ``(B, 1, H, W)``, equations 8 to 13.

    Args:
        images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.
        reconstructions (Tensor): Their reconstructions, in [0, 1] and of the same shape.
    """
    squared = (rgb_to_lab(images) - rgb_to_lab(reconstructions)).square().sum(1, keepdim=True)
    return box_blur(squared, COLOUR_WINDOW, separable=True)
