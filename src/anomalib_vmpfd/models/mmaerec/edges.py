# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Edges of an image (section 2.1, figure 2) and their features at several scales (lower half of figure 1)."""

from collections.abc import Sequence

import torch
from kornia.color import rgb_to_grayscale
from kornia.morphology import gradient
from torch import Tensor, nn

from anomalib_vmpfd.nn.convolution import convolution


def edge_map(images: Tensor) -> Tensor:
    """Dilation less erosion of the grey image by a square of 3 x 3 pixels.

    Args:
        images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.

    Returns:
        Tensor: Edges ``I_e`` in [0, 1] of shape ``(B, 1, H, W)``.
    """
    grey = rgb_to_grayscale(images.float())
    return gradient(grey, torch.ones(3, 3, dtype=grey.dtype, device=grey.device))


class EdgeEncoder(nn.Module):
    """Features of the edges, each level at half the resolution of the one before.

    Args:
        widths (Sequence[int]): Channels ``C_l`` of the levels, finest first.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        before = (1, *widths[:-1])
        self.levels = nn.ModuleList(
            nn.Sequential(convolution(above, width, stride=2), convolution(width, width))
            for above, width in zip(before, widths, strict=True)
        )

    def forward(self, edges: Tensor) -> list[Tensor]:
        """Features ``(B, C_l, H / 2^l, W / 2^l)`` of edges ``(B, 1, H, W)``, l from 1."""
        features = []
        for level in self.levels:
            edges = level(edges)
            features.append(edges)
        return features
