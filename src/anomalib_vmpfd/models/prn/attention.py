# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Self-attention between patches of several sizes (section 3.3)."""

import math

import torch
from einops import rearrange
from torch import Tensor, nn

PARTS = (1, 2, 4, 8)  # patches of h, h / 2, h / 4 and h / 8 a side


class MultiSizeAttention(nn.Module):
    """Multi-size self-attention MSA: one head for each size of patches, then a residual block.

    The paper embeds flattened patches by full matrices, up to 524,288 x 524,288 of them. Here a 1 x 1 convolution
    embeds the channels, and the patches of the embedded maps are the tokens.

    Args:
        channels (int): Channels ``2 c_j`` of the maps, a multiple of 4: a quarter for each head.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, 3 * channels, 1)
        self.block = ResidualBlock(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Attend; maps ``(B, C, h, w)`` keep their shape."""
        embedded = (each.chunk(len(PARTS), 1) for each in self.embed(maps).chunk(3, 1))
        heads = [patch_attention(q, k, v, parts) for q, k, v, parts in zip(*embedded, PARTS, strict=True)]
        return self.block(maps + torch.cat(heads, 1))


def patch_attention(queries: Tensor, keys: Tensor, values: Tensor, parts: int) -> Tensor:
    """Self-attention between the patches of a map, equation 3.

    Args:
        queries (Tensor): ``(B, d, h, w)``.
        keys (Tensor): Of the same shape.
        values (Tensor): Of the same shape.
        parts (int): Patches along either axis; of an axis that it does not divide, its greatest divisor that does.

    Returns:
        Tensor: ``(B, d, h, w)``.
    """
    height, width = values.shape[-2:]
    rows, columns = math.gcd(parts, height), math.gcd(parts, width)
    patches = {"i": rows, "j": columns, "p": height // rows, "r": width // columns}
    # a patch a column, so that the softmax is not over the last axis: OpenVINO would take it all for attention of its
    # own, and gives another answer where that is scaled by the length of a token. The paper divides by the length, not
    # by its root: neighbouring pixels are alike
    q, k, v = (rearrange(x, "b d (i p) (j r) -> b (d p r) (i j)", **patches) for x in (queries, keys, values))
    weights = (k.transpose(1, 2) @ q / q.shape[1]).softmax(1)
    return rearrange(v @ weights.to(v.dtype), "b (d p r) (i j) -> b d (i p) (j r)", **patches)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around which the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Transform maps ``(B, C, h, w)``."""
        return (maps + self.layers(maps)).relu()
