# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Mixture density with prototypes for means: constant memory, however many normal images there are."""

import math
from itertools import repeat

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .coreset import farthest_points

# whose distances to all prototypes are in memory together: 16 MB, which the C library reuses from call to call, where
# from 32 MB on it asks the system for new pages every time
CELLS_AT_ONCE = 512
GROUP = 128
NEIGHBOURS = 9  # prototypes that share one spread, each with the eight nearest to it
TIE = 1e-3  # by how much of its squared distance another prototype may be farther away and still have a say


class PrototypeMixtureHead(nn.Module):
    """Mixture of ``K`` Gaussians around real descriptors of normal cells, each with a spread of its own.

    The means are a greedy coreset of the normals and nothing is trained. A mean regressed from the image, as in
    :class:`MixtureDensityHead`, has to be right everywhere to tell a defect; a prototype is right by construction. What
    equation 3 predicts from the cell itself, its spread, is counted here on normal images around the prototype: a
    spread that a network predicts increases where the cell is anomalous, and hides it.

    Args:
        target_channels (int): Channels ``C`` of ``y``.
        num_components (int): Number ``K`` of prototypes.

    Example:
        >>> head = PrototypeMixtureHead(16, num_components=32)
        >>> head.fit_prototypes(torch.randn(1000, 16))
        >>> head.score(torch.randn(2, 16, 5, 5)).shape
        torch.Size([2, 5, 5])
    """

    products: Tensor
    std: Tensor
    sources: Tensor
    location: Tensor
    spread: Tensor

    def __init__(self, target_channels: int, num_components: int = 8192) -> None:
        super().__init__()
        # -2 mu_k over |mu_k|^2: their product with a cell and a one is its squared distance, less the cell's own length
        self.register_buffer("products", torch.zeros(target_channels + 1, num_components))
        self.register_buffer("std", torch.ones(target_channels))
        self.register_buffer("sources", torch.zeros(num_components, dtype=torch.long))
        # until spreads are fitted, scores are distances
        self.register_buffer("location", torch.zeros(num_components))
        self.register_buffer("spread", torch.ones(num_components))

    @property
    def prototypes(self) -> Tensor:
        """The means ``mu_k`` in units of ``std``, ``(K, C)``."""
        return -0.5 * self.products[:-1].T

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
        count = self.products.shape[1]
        # fewer cells than prototypes: repeated ones change nothing
        chosen = farthest_points(cells, count) if len(cells) > count else torch.arange(count) % len(cells)
        means = cells[chosen]
        self.products.copy_(torch.cat([-2 * means, means.square().sum(1, keepdim=True)], dim=1).T)
        if sources is not None:
            self.sources.copy_(sources[chosen])

    @torch.no_grad()
    def fit_spreads(self, distances: Tensor, nearest: Tensor) -> Tensor:
        """Learn how far normal cells lie from each prototype that is nearest to them: mean and standard deviation.

        Cells at edges and of other high-variance parts lie far from their prototypes at any location, others near.

        Args:
            distances (Tensor): Distances of the cells of normal images to the nearest prototype, each image by the
                prototypes of others, ``(M, h, w)``.
            nearest (Tensor): Which prototype that is, ``(M, h, w)``.

        Returns:
            Tensor: Leave-one-image-out scores, ``(M, h, w)``: each image by the spreads of the others.
        """
        prototypes = self.prototypes
        neighbours = torch.cat([
            self._squared_distances(part).topk(min(NEIGHBOURS, len(prototypes)), largest=False).indices
            for part in prototypes.split(CELLS_AT_ONCE)
        ])
        # counts, sums and sums of squares around each prototype, image by image
        sums = torch.stack([self._sums(d, k) for d, k in zip(distances.flatten(1), nearest.flatten(1), strict=True)])
        location, spread = _spreads(sums.sum(0), neighbours)
        self.location.copy_(location)
        self.spread.copy_(spread)
        left_out = []
        for image, (distance, index) in enumerate(zip(distances, nearest, strict=True)):
            if len(distances) > 1:
                location, spread = _spreads(sums[:image].sum(0) + sums[image + 1 :].sum(0), neighbours)
            left_out.append((distance - location[index]) / spread[index])
        return torch.stack(left_out)

    def score(self, y: Tensor) -> Tensor:
        """Distance to the nearest prototype over what is usual around it.

        It is the exponent of the likeliest Gaussian, but for a distance that every normal keeps. Where a second
        prototype is as near, mean and spread are those of both.

        Args:
            y (Tensor): Normalised descriptors, ``(B, C, h, w)``.

        Returns:
            Tensor: Scores of shape ``(B, h, w)``.
        """
        squared, nearest = self._two_nearest(y)
        # scored by one prototype alone, a cell half-way between two would depend on how a backend rounds
        apart = (squared[..., -1] - squared[..., 0]) / (TIE * squared[..., 0]).clamp_min(1e-12)
        share = torch.sigmoid(-apart)
        location, spread = (
            torch.lerp(values[nearest[..., 0]], values[nearest[..., -1]], share)
            for values in (self.location, self.spread)
        )
        return (squared[..., 0].sqrt() - location) / spread

    def nearest(self, y: Tensor, sources: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Find the nearest prototype of every cell.

        Args:
            y (Tensor): Normalised descriptors, ``(B, C, h, w)``.
            sources (Tensor | None): Numbers of these images, ``(B,)``, where prototypes were taken from them: each is
                compared with the prototypes of the others (leave one image out).

        Returns:
            tuple[Tensor, Tensor]: Root mean square distance to it, in units of the channels' spread over the cells, and
            its index, both ``(B, h, w)``.
        """
        squared, index = self._two_nearest(y, sources)
        return squared[..., 0].sqrt(), index[..., 0]

    def _two_nearest(self, y: Tensor, sources: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean square distances to the two nearest prototypes, nearest first, and which they are, ``(B, h, w, 2)``."""
        with torch.autocast(y.device.type, enabled=False):
            cells = rearrange(y, "b c h w -> (b h w) c").float() / self.std
            owners = None if sources is None else sources.repeat_interleave(y.shape[2] * y.shape[3])
            if torch.compiler.is_exporting() or torch.jit.is_tracing():
                squared, index = self._two_nearest_of(cells, owners)
            else:
                own = repeat(None) if owners is None else owners.split(CELLS_AT_ONCE)
                parts = zip(cells.split(CELLS_AT_ONCE), own, strict=False)
                squared, index = map(torch.cat, zip(*(self._two_nearest_of(*part) for part in parts), strict=True))
        shape = (y.shape[0], *y.shape[2:], squared.shape[1])
        return (squared / y.shape[1]).view(shape), index.view(shape)

    def _two_nearest_of(self, cells: Tensor, owners: Tensor | None) -> tuple[Tensor, Tensor]:
        """Squared distances of cells ``(N, C)`` and indices, ``(N, 2)`` each; ``(N, 1)`` of a single prototype."""
        distances = self._squared_distances(cells)
        if owners is not None:
            own = self.sources == owners[:, None]
            # where images are all the same, the prototypes may all be of one of them
            distances.masked_fill_(own & ~own.all(1, keepdim=True), torch.inf)
        # minima of groups, then within the two best groups: a search in all takes several times as long
        size = math.gcd(distances.shape[1], GROUP)
        minima = distances.unflatten(1, (-1, size)).amin(2)
        groups = minima.topk(min(2, minima.shape[1]), largest=False).indices
        candidates = (size * groups[..., None] + torch.arange(size, device=groups.device)).flatten(1)
        best, within = distances.gather(1, candidates).topk(min(2, candidates.shape[1]), largest=False)
        return (best + cells.square().sum(1, keepdim=True)).clamp_min(0), candidates.gather(1, within)

    def _squared_distances(self, cells: Tensor) -> Tensor:
        """Squared distances ``(N, K)``, less the squared lengths of the cells."""
        # a bias, as addmm's, would be written to the whole result before the product is added to it
        return F.pad(cells, (0, 1), value=1.0) @ self.products

    def _sums(self, distances: Tensor, nearest: Tensor) -> Tensor:
        """Count, sum and sum of squares of the distances to each prototype, ``(K, 3)``."""
        powers = torch.stack([distances**power for power in range(3)], dim=1)
        return powers.new_zeros(self.products.shape[1], 3).index_add_(0, nearest, powers)


def _spreads(sums: Tensor, neighbours: Tensor, prior: float = 16.0) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the distances around every prototype, from sums ``(K, 3)``, ``(K,)`` each.

    A prototype shares the cells of its neighbours ``(K, n)``, and both figures are drawn towards those of all cells by
    ``prior`` cells' worth. Spreads below the median count as that: plain background must not turn its noise into
    alarms.
    """
    whole = sums.sum(0)
    count, first, second = (sums[neighbours].sum(1) + prior * whole / whole[0]).T
    location = first / count
    spread = (second / count - location.square()).clamp_min(0).sqrt()
    return location, spread.clamp_min(spread.median().clamp_min(1e-6))
