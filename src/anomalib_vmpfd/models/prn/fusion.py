# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Exchange between scales (section 3.2)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class MultiScaleFusion(nn.Module):
    """Multi-scale fusion MF: every scale becomes the sum of all scales, each brought to its size, equation 2.

    Args:
        channels (Sequence[int]): Channels of each scale, finest first; each scale has half the size of the one before.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.to_scale = nn.ModuleList(
            nn.ModuleList(_transform(channels[r], channels[j], j - r) for r in range(len(channels)))
            for j in range(len(channels))
        )

    def forward(self, scales: Sequence[Tensor]) -> list[Tensor]:
        """Fuse feature maps ``(B, c_j, h_j, w_j)`` of each scale; the shapes stay."""
        fused = []
        for target, transforms in zip(scales, self.to_scale, strict=True):
            size = target.shape[-2:]
            parts = [_resized(f(scale), size) for f, scale in zip(transforms, scales, strict=True)]
            fused.append(sum(parts[1:], parts[0]))
        return fused


def _transform(channels: int, out_channels: int, steps: int) -> nn.Module:
    """f_rj of a map that lies ``steps`` scales above its target, before a coarser one is enlarged."""
    if steps == 0:
        return nn.Identity()
    if steps < 0:
        # a 1 x 1 convolution and an interpolation commute, and this order is the cheaper one
        return nn.Conv2d(channels, out_channels, 1)
    stride = 2**steps
    return nn.Sequential(
        nn.Conv2d(channels, channels, stride + 1, stride, stride // 2, groups=channels),
        nn.Conv2d(channels, out_channels, 1),
    )


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)
