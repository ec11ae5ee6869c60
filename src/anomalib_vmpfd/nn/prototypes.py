# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Prototypes of normal cells: constant memory, however many normal images there are."""

from itertools import repeat

import torch
from einops import rearrange
from torch import Tensor, nn

from .coreset import farthest_points
from .precision import full_float32

# whose distances to all prototypes are in memory together: 16 MB, which the C library reuses from call to call, where
# from 32 MB on it asks the system for new pages every time
DISTANCES_AT_ONCE = 2**22


class Prototypes(nn.Module):
    """``K`` cells of normal images, and the distance of any cell to the nearest of them.

    They are a mixture of equal Gaussians around real descriptors, chosen as a greedy coreset; nothing is trained. A
    mean regressed from the image, as in :class:`MixtureDensityHead`, has to be right everywhere to tell a defect; a
    prototype is right by construction.

    Args:
        channels (int): Channels ``C`` of a cell.
        count (int): Number ``K`` of prototypes.

    Example:
        >>> prototypes = Prototypes(16, count=32)
        >>> prototypes.fit(torch.randn(1000, 16))
        >>> prototypes(torch.randn(2, 16, 5, 5)).shape
        torch.Size([2, 5, 5])
    """

    products: Tensor
    std: Tensor
    sources: Tensor

    def __init__(self, channels: int, count: int = 4096) -> None:
        super().__init__()
        # -2 mu_k over |mu_k|^2: their product with a cell and a one is its squared distance, less the cell's own length
        self.register_buffer("products", torch.zeros(channels + 1, count))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("sources", torch.zeros(count, dtype=torch.long))

    @property
    def means(self) -> Tensor:
        """The means ``mu_k`` in units of ``std``, ``(K, C)``."""
        return -0.5 * self.products[:-1].T

    @torch.no_grad()
    def fit(self, cells: Tensor, sources: Tensor | None = None) -> None:
        """Choose the prototypes.

        Args:
            cells (Tensor): Normalised descriptors of normal cells, ``(N, C)``.
            sources (Tensor | None): Number of the image that each cell was taken from, ``(N,)``.
        """
        # averages of cells spread less in some channels than in others
        self.std.copy_(cells.std(0, unbiased=False).clamp_min(0.1))
        cells = cells / self.std
        count = self.products.shape[1]
        # fewer cells than prototypes: repeated ones change nothing
        chosen = farthest_points(cells, count) if len(cells) > count else torch.arange(count) % len(cells)
        means = cells[chosen]
        self.products.copy_(torch.cat([-2 * means, means.square().sum(1, keepdim=True)], dim=1).T)
        if sources is not None:
            self.sources.copy_(sources[chosen])

    def forward(self, y: Tensor, numbers: Tensor | None = None) -> Tensor:
        """Distance to the nearest prototype, the exponent of equation 13 for the likeliest Gaussian.

        Args:
            y (Tensor): Normalised descriptors, ``(B, C, h, w)``.
            numbers (Tensor | None): Numbers of these images, ``(B,)``, where prototypes were taken from them: each is
                compared with the prototypes of the other images only (leave one image out).

        Returns:
            Tensor: Root mean square distance in units of the channels' spread over the cells, ``(B, h, w)``.
        """
        block = max(1, DISTANCES_AT_ONCE // self.products.shape[1])
        with full_float32(y.device.type):
            if torch.compiler.is_exporting() or torch.jit.is_tracing():
                # so many cells of every image: the number of images is not known yet, that of blocks has to be
                cells = rearrange(y, "b c h w -> b (h w) c").float() / self.std
                squared = torch.cat([self._squared_distances(part, None) for part in cells.split(block, 1)], 1)
            else:
                cells = rearrange(y, "b c h w -> (b h w) c").float() / self.std
                owners = None if numbers is None else numbers.repeat_interleave(y.shape[2] * y.shape[3])
                own = repeat(None) if owners is None else owners.split(block)
                parts = zip(cells.split(block), own, strict=False)
                squared = torch.cat([self._squared_distances(*part) for part in parts])
        return (squared / y.shape[1]).sqrt().view(y.shape[0], *y.shape[2:])

    def _squared_distances(self, cells: Tensor, owners: Tensor | None) -> Tensor:
        """Squared distances of cells ``(..., C)`` to the nearest prototype, ``(...)``."""
        # a bias, as addmm's, would be written to the whole result before the product is added to it; a padding is what
        # OpenVINO rewrites, and then rounds where it has bfloat16
        distances = torch.cat((cells, torch.ones_like(cells[..., :1])), -1) @ self.products
        if owners is not None:
            own = self.sources == owners[:, None]
            # where images are all the same, the prototypes may all be of one of them
            distances.masked_fill_(own & ~own.all(1, keepdim=True), torch.inf)
        return (distances.amin(-1) + cells.square().sum(-1)).clamp_min(0)
