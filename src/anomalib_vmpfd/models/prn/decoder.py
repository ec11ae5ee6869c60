# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Decoder of a U-Net, from maps of three scales to the anomaly score of every pixel (figure 3)."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.nn.convolution import convolution

PRIOR = 0.01  # of an anomalous pixel before training, as the focal loss begins (Lin et al., 2017, section 4.1)


class UNetDecoder(nn.Module):
    """Upsample the coarsest maps, joining the skip connection of every scale on the way.

    The maps reach half the resolution of the image by convolutions, and all of it by interpolation.

    Args:
        channels (Sequence[int]): Channels of the skip connections, finest first; each scale has half the size of the
            one before.
        stride (int): Pixels of the image for a cell of the finest scale.
    """

    def __init__(self, channels: Sequence[int], stride: int = 4) -> None:
        super().__init__()
        coarse_first = list(reversed(channels))
        self.joins = nn.ModuleList(conv_block(coarse + skip, skip) for coarse, skip in pairwise(coarse_first))
        self.pixels = nn.ModuleList()
        width = channels[0]
        for _ in range(int(math.log2(stride)) - 1):
            self.pixels.append(conv_block(width, width // 2))
            width //= 2
        self.head = nn.Conv2d(width, 1, 1)
        nn.init.constant_(self.head.bias, math.log(PRIOR / (1 - PRIOR)))

    def forward(self, skips: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Decode.

        Args:
            skips (Sequence[Tensor]): Maps ``(B, C_j, h_j, w_j)`` of each scale, finest first.
            size (tuple[int, int]): Height and width of the image.

        Returns:
            Tensor: Logits of the anomaly score map ``M_o``, ``(B, 1, H, W)``.
        """
        *finer, maps = skips
        for skip, join in zip(reversed(finer), self.joins, strict=True):
            maps = join(torch.cat([_enlarged(maps, skip.shape[-2:]), skip], 1))
        for block in self.pixels:
            maps = block(_enlarged(maps, (2 * maps.shape[-2], 2 * maps.shape[-1])))
        return _enlarged(self.head(maps), size)


def conv_block(channels: int, out_channels: int) -> nn.Sequential:
    """Two 3 x 3 convolutions, each with a batch norm and ReLU."""
    return nn.Sequential(convolution(channels, out_channels), convolution(out_channels, out_channels))


def _enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)
