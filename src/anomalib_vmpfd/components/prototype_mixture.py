# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Mixture density with prototypes for means: constant memory, however many normal images there are."""

from itertools import repeat

import torch
from einops import rearrange
from torch import Tensor, nn

PROJECTED_CHANNELS = 32
CELLS_AT_ONCE = 1024  # whose distances to all prototypes are in memory together


def farthest_points(points: Tensor, count: int) -> Tensor:
    """Greedy coreset: each next point is the one farthest from all that were chosen before.

    What anomalib's ``KCenterGreedy`` does, in a tenth of its time: distances come from one product with vectors of a
    random projection, where that one subtracts all pairs in 128 dimensions and more.

    Args:
        points (Tensor): Points of shape ``(N, C)``.
        count (int): Number of points to choose, at most ``N``.

    Returns:
        Tensor: Indices of shape ``(count,)``, all different; the first is the point farthest from the mean.
    """
    projected = points
    if points.shape[1] > PROJECTED_CHANNELS:
        generator = torch.Generator().manual_seed(0)
        projection = torch.randn(points.shape[1], PROJECTED_CHANNELS, generator=generator)
        projected = points @ (projection / PROJECTED_CHANNELS**0.5).to(points)
    projected = projected - projected.mean(0)
    squared = projected.square().sum(1)
    distance = squared.clone()
    chosen = torch.empty(count, dtype=torch.long, device=points.device)
    for index in range(count):
        farthest = distance.argmax()
        chosen[index] = farthest
        if index == 0:
            distance.fill_(torch.inf)
        to_farthest = torch.addmv(squared, projected, projected[farthest], alpha=-2) + squared[farthest]
        torch.minimum(distance, to_farthest, out=distance)
        # rounding may leave a chosen point a little away from itself
        distance[farthest] = -torch.inf
    return chosen


class PrototypeMixtureHead(nn.Module):
    """Mixture of ``K`` equal Gaussians around real descriptors of normal cells.

    The means are a greedy coreset of the normals and nothing is trained. A mean regressed from the image, as in
    :class:`MixtureDensityHead`, has to be right everywhere to tell a defect; a prototype is right by construction. How
    far normals stray at each place is left to the calibration on held-out normals: a spread that a network predicts
    from the cell itself grows where the cell is odd, and hides it.

    Args:
        target_channels (int): Channels ``C`` of ``y``.
        num_components (int): Number ``K`` of prototypes.

    Example:
        >>> head = PrototypeMixtureHead(16, num_components=32)
        >>> head.fit_prototypes(torch.randn(1000, 16))
        >>> head.score(torch.randn(2, 16, 5, 5)).shape
        torch.Size([2, 5, 5])
    """

    prototypes: Tensor
    std: Tensor
    sources: Tensor

    def __init__(self, target_channels: int, num_components: int = 8192) -> None:
        super().__init__()
        self.register_buffer("prototypes", torch.zeros(num_components, target_channels))
        self.register_buffer("std", torch.ones(target_channels))
        self.register_buffer("sources", torch.zeros(num_components, dtype=torch.long))

    @torch.no_grad()
    def fit_prototypes(self, cells: Tensor, sources: Tensor | None = None) -> None:
        """Choose the prototypes.

        Args:
            cells (Tensor): Normalised descriptors of normal cells, ``(N, C)``.
            sources (Tensor | None): Number of the image that each cell was taken from, ``(N,)``.
        """
        # averages of cells spread less in some channels than in others
        self.std.copy_(cells.std(0, unbiased=False).clamp_min(0.1))
        cells = cells / self.std
        count = len(self.prototypes)
        # fewer cells than prototypes: repeated ones change nothing
        chosen = farthest_points(cells, count) if len(cells) > count else torch.arange(count) % len(cells)
        self.prototypes.copy_(cells[chosen])
        if sources is not None:
            self.sources.copy_(sources[chosen])

    def score(self, y: Tensor, sources: Tensor | None = None) -> Tensor:
        """Root mean square distance to the nearest prototype in units of the channels' spread over the cells.

        It is the exponent of the likeliest Gaussian.

        Args:
            y (Tensor): Normalised descriptors, ``(B, C, h, w)``.
            sources (Tensor | None): Numbers of these images, ``(B,)``, where prototypes were taken from them: each is
                judged by the prototypes of the others, as if it were new.

        Returns:
            Tensor: Scores of shape ``(B, h, w)``.
        """
        with torch.autocast(y.device.type, enabled=False):
            cells = rearrange(y, "b c h w -> (b h w) c").float() / self.std
            owners = None if sources is None else sources.repeat_interleave(y.shape[2] * y.shape[3])
            if torch.compiler.is_exporting() or torch.jit.is_tracing():
                nearest = self._nearest(cells, owners)
            else:
                own = repeat(None) if owners is None else owners.split(CELLS_AT_ONCE)
                parts = zip(cells.split(CELLS_AT_ONCE), own, strict=False)
                nearest = torch.cat([self._nearest(*part) for part in parts])
        return (nearest / y.shape[1]).sqrt().view(y.shape[0], *y.shape[2:])

    def _nearest(self, cells: Tensor, owners: Tensor | None) -> Tensor:
        """Squared distance of cells ``(N, C)`` to the nearest prototype, ``(N,)``."""
        distances = torch.addmm(self.prototypes.square().sum(1), cells, self.prototypes.T, alpha=-2)
        if owners is not None:
            own = self.sources == owners[:, None]
            # where images are all the same, the prototypes may all be of one of them
            distances.masked_fill_(own & ~own.all(1, keepdim=True), torch.inf)
        return (distances.amin(1) + cells.square().sum(1)).clamp_min(0)
