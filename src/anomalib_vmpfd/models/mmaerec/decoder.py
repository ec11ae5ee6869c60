# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Decoder of the U-Net: an image from features at several scales (section 2.3, figure 4)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.nn.convolution import convolution


class Decoder(nn.Module):
    """Doubles the resolution level by level; features of each level enter through a skip connection.

    Args:
        widths (Sequence[int]): Channels ``C_l`` of the features, finest first.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        steps = list(pairwise(widths[::-1]))
        self.narrow = nn.ModuleList(nn.Conv2d(coarse, fine, kernel_size=1) for coarse, fine in steps)
        self.merge = nn.ModuleList(convolution(2 * fine, fine) for _, fine in steps)
        # four times the channels, shuffled to twice the pixels a side: convolutions at full resolution cost most
        self.image = nn.Sequential(
            convolution(widths[0], widths[0]),
            nn.Conv2d(widths[0], 4 * 3, kernel_size=3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Reconstruct images.

        Args:
            features (Sequence[Tensor]): Features ``(B, C_l, H / 2^l, W / 2^l)``, l from 1, finest first.

        Returns:
            Tensor: Images ``I_r`` of shape ``(B, 3, H, W)``, in [0, 1] where they were learnt well.
        """
        *finer, decoded = features
        for narrow, merge, skip in zip(self.narrow, self.merge, reversed(finer), strict=True):
            above = F.interpolate(narrow(decoded), scale_factor=2.0, mode="nearest")
            decoded = merge(torch.cat([above, skip], dim=1))
        return self.image(decoded)
