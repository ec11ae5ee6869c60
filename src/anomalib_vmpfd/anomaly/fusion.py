# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Fusion of anomaly maps on one scale, the quantiles of normals (equations 15 to 20)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class QuantileFusion(nn.Module):
    """Bring the maps of several branches to one scale and add them up, equations 17 and 20.

    Args:
        weights (Sequence[float]): Weight of each branch's map; a single branch has weight 1 whatever is given.
    """

    quantiles: Tensor

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.weights = tuple(weights) if len(weights) > 1 else (1.0,)
        # q_start and q_end of every branch; until they are calibrated the maps keep their own scale
        self.register_buffer("quantiles", torch.tensor([[0.0, 1.0]] * len(self.weights)))

    @torch.no_grad()
    def calibrate(self, branch: int, quantiles: Tensor) -> None:
        """Keep ``q_start`` and ``q_end`` of a branch on normals, equations 15, 16, 18 and 19.

        Args:
            branch (int): Number of the branch.
            quantiles (Tensor): Both quantiles, shape ``(2,)``.
        """
        self.quantiles[branch] = quantiles.to(self.quantiles)

    def normalize(self, branch: int, anomaly_map: Tensor) -> Tensor:
        """Bring ``q_start`` of the branch to 0 and ``q_end`` to 1, equations 17 and 20."""
        start, end = self.quantiles[branch]
        # a branch that is the same on all normals has no scale of its own
        return (anomaly_map - start) / (end - start).clamp_min(1e-6)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Normalise the maps of all branches, ``(B, 1, H, W)`` each, and fuse them to one of the same shape."""
        weighted = [
            weight * self.normalize(branch, m)
            for branch, (weight, m) in enumerate(zip(self.weights, maps, strict=True))
        ]
        return sum(weighted[1:], weighted[0])
