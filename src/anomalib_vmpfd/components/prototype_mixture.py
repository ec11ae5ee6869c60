# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Mixture density head with prototypes for means: constant memory, however many normal images there are."""

import torch
from anomalib.models.components import KCenterGreedy
from einops import rearrange
from torch import Tensor, nn


class PrototypeMixtureHead(nn.Module):
    """Mixture ``p(y | x)`` of isotropic Gaussians around ``K`` real descriptors of normal cells.

    The means are a greedy coreset of the normals, fixed before training. What is learnt is how far normals stray: a
    scale ``s_k`` for each prototype, begun at the distance of the cells that are nearest to it, and a scale ``s(x)``
    for the place, from the code ``x`` of the cell. A mean regressed from ``x``, as in :class:`MixtureDensityHead`, has
    to be right everywhere to tell a defect; a prototype is right by construction.

    Args:
        in_channels (int): Channels of ``x``.
        target_channels (int): Channels ``C`` of ``y``.
        num_components (int): Number ``K`` of prototypes.
        hidden (int): Width of the network that predicts ``s(x)``.
        effective_dim (float): Dimensions that the likelihood counts. Channels of a descriptor are correlated, and with
            all of them the sharpest component would decide alone.

    Example:
        >>> head = PrototypeMixtureHead(8, 16, num_components=32)
        >>> head.fit_prototypes(torch.randn(1000, 16))
        >>> head.score(torch.randn(2, 16, 5, 5), torch.randn(2, 8, 5, 5)).shape
        torch.Size([2, 5, 5])
    """

    prototypes: Tensor

    def __init__(
        self,
        in_channels: int,
        target_channels: int,
        num_components: int = 1024,
        hidden: int = 64,
        effective_dim: float = 16.0,
    ) -> None:
        super().__init__()
        self.effective_dim = effective_dim
        self.register_buffer("prototypes", torch.zeros(num_components, target_channels))
        self.log_prototype_scale = nn.Parameter(torch.zeros(num_components))
        self.log_scale = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1),
            nn.GELU(),
            nn.Conv2d(hidden, hidden, 1),
            nn.GELU(),
            nn.Conv2d(hidden, 1, 1),
        )
        # the place says nothing until it has been learnt
        nn.init.zeros_(self.log_scale[-1].weight)
        nn.init.zeros_(self.log_scale[-1].bias)

    @torch.no_grad()
    def fit_prototypes(self, cells: Tensor, prior: float = 8.0) -> None:
        """Choose the prototypes and start their scales.

        Args:
            cells (Tensor): Descriptors of normal cells, ``(N, C)``.
            prior (float): Cells that the scale of all prototypes counts for in the scale of each.
        """
        count = len(self.prototypes)
        if len(cells) > count:
            chosen = torch.as_tensor(KCenterGreedy(cells, count / len(cells)).select_coreset_idxs())[:count]
            chosen = torch.cat([chosen, chosen[: count - len(chosen)]])
        else:
            # fewer cells than prototypes: repeated ones change nothing
            chosen = torch.arange(count) % len(cells)
        self.prototypes.copy_(cells[chosen])
        nearest = [self._distances(part).min(1) for part in cells.split(4096)]
        distance = torch.cat([n.values for n in nearest])
        owner = torch.cat([n.indices for n in nearest])
        others = distance > 1e-6
        ones = torch.zeros(count, device=cells.device).index_add_(0, owner[others], torch.ones_like(distance[others]))
        total = torch.zeros_like(ones).index_add_(0, owner[others], distance[others])
        typical = distance[others].mean() if others.any() else distance.new_tensor(1.0)
        self.log_prototype_scale.copy_(0.5 * ((total + prior * typical) / (ones + prior)).log())

    def _distances(self, y: Tensor) -> Tensor:
        """Mean squared difference of ``(N, C)`` to every prototype, ``(N, K)``."""
        product = torch.addmm(self.prototypes.square().sum(1), y, self.prototypes.T, alpha=-2)
        return (product + y.square().sum(1, keepdim=True)).clamp_min(0) / y.shape[1]

    def _scaled(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_scale = rearrange(self.log_scale(x), "b 1 h w -> (b h w) 1").float() + self.log_prototype_scale
        with torch.autocast(y.device.type, enabled=False):
            distances = self._distances(rearrange(y, "b c h w -> (b h w) c").float())
        return distances, distances * torch.exp(-2 * log_scale), log_scale

    def loss(self, y: Tensor, x: Tensor) -> Tensor:
        """Negative log-likelihood for each effective dimension, without the constant.

        A cell that is a prototype itself is explained by the others, or its likelihood would have no bound.

        Args:
            y (Tensor): Normalised descriptors, ``(B, C, h, w)``.
            x (Tensor): Codes, ``(B, in_channels, h, w)``.

        Returns:
            Tensor: NLL of shape ``(B, h, w)``.
        """
        distances, scaled, log_scale = self._scaled(y, x)
        log_density = -self.effective_dim * (0.5 * scaled + log_scale)
        log_density = log_density.masked_fill(distances < 1e-6, -torch.inf)
        log_likelihood = torch.logsumexp(log_density, 1)
        log_likelihood = log_likelihood.masked_fill(log_likelihood.isneginf(), 0.0)
        return -log_likelihood.view(y.shape[0], *y.shape[2:]) / self.effective_dim

    def score(self, y: Tensor, x: Tensor) -> Tensor:
        """Distance to the nearest plausible prototype in units of its spread there, ``(B, h, w)``.

        The exponent of the likeliest component alone: the likelihood would also reward places where normals vary
        little for that alone.
        """
        _, scaled, _ = self._scaled(y, x)
        return scaled.amin(1).sqrt().view(y.shape[0], *y.shape[2:])
