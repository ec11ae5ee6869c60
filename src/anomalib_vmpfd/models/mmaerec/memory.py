# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Memory module: features of an image approximated by a few items learnt from normal images (section 2.2, figure 3)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

EPSILON = 1e-12


class Recalled(NamedTuple):
    """What a memory answers.

    Attributes:
        features (Tensor): Approximations ``z_hat`` of the queries, ``(B, C, h, w)``, equation 3.
        weights (Tensor): Sparse weights ``w_hat`` of the items, ``(B, N, h, w)``; their sum is 1, or 0 in a cell that
            resembles no item by more than ``lambda``.
    """

    features: Tensor
    weights: Tensor


class MemoryModule(nn.Module):
    """``N`` trainable items; each cell is replaced by a combination of those that resemble it.

    Args:
        num_items (int): Number of items ``N``.
        channels (int): Channels ``C`` of queries and items.
        shrinkage (float): Threshold ``lambda`` of equation 2 in units of ``1 / N``, from 1 to 3 in the paper. From 1 on
            it keeps items only that are addressed more than on average.

    Raises:
        ValueError: If there is no item, or every weight would be kept or none.
    """

    def __init__(self, num_items: int, channels: int, shrinkage: float = 1.0) -> None:
        super().__init__()
        if num_items < 1:
            msg = f"num_items={num_items}: a memory needs at least one item."
            raise ValueError(msg)
        if not 0 <= shrinkage < num_items:
            msg = (
                f"shrinkage={shrinkage} is lambda in units of 1 / N: choose it from 0 and below num_items={num_items}."
            )
            raise ValueError(msg)
        self.threshold = shrinkage / num_items
        self.items = nn.Parameter(torch.randn(num_items, channels))

    @torch.no_grad()
    def start_from(self, queries: Tensor) -> None:
        """Let the items be cells of normal images, chosen at random: they lie where queries lie from the first step on.

        Args:
            queries (Tensor): Features of normal images, ``(B, C, h, w)``, with ``N`` cells at least; with fewer the
                items stay as they are.
        """
        cells = queries.movedim(1, -1).flatten(0, 2)
        if len(cells) >= len(self.items):
            self.items.copy_(cells[torch.randperm(len(cells))[: len(self.items)]])

    def address(self, queries: Tensor) -> Tensor:
        """Weights ``w`` of the items, ``(B, N, h, w)``, of queries ``(B, C, h, w)``: softmax of cosines, equation 1."""
        items = F.normalize(self.items, dim=1)
        cosines = F.conv2d(F.normalize(queries, dim=1), items[:, :, None, None])
        return cosines.softmax(1)

    def shrink(self, weights: Tensor) -> Tensor:
        """Set weights up to ``lambda`` to 0 and renormalise, equation 2."""
        # the ReLU of equation 2 over its own size: 1 above lambda, 0 below, with the gradient of the weight itself
        kept = F.threshold(weights, self.threshold, 0.0)
        return kept / kept.sum(1, keepdim=True).clamp_min(EPSILON)

    def forward(self, queries: Tensor) -> Recalled:
        """Approximate queries ``z`` of shape ``(B, C, h, w)``, equations 1 to 3."""
        weights = self.shrink(self.address(queries))
        return Recalled(F.conv2d(weights, self.items.T[:, :, None, None]), weights)


def entropy(weights: Tensor) -> Tensor:
    """Entropy of the weights of a cell, the mean over all cells, equation 5; small where few items explain a cell.

    Args:
        weights (Tensor): Weights ``w_hat`` of shape ``(B, N, h, w)``.

    Returns:
        Tensor: A scalar in nats.
    """
    # the logarithm of a weight of 0 would have an infinite gradient
    return -(weights * (weights + EPSILON).log()).sum(1).mean()
