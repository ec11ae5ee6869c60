# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly scores standardised by what is usual at their location."""

import torch
from torch import Tensor, nn

PRIOR = 32.0  # images' worth of the whole map in the statistics of a location


class LocationStatistics(nn.Module):
    """Standardise scores by mean and standard deviation of their location on normal images.

    Corners, edges and other high-variance locations would raise alarms on normals otherwise. Both statistics are shrunk
    towards those of the whole map, so that a few images suffice. Standard deviations below the median are raised to
    it: the noise of a flat background must not turn into alarms. Cells outside of a region of interest take no part,
    and their scores become minus infinity, so that none is ever the largest.

    Args:
        shape (tuple[int, int]): Number of cells ``(h, w)``.
        prior (float): How many images' worth of the whole map is in the statistics of a location.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, int], prior: float = PRIOR) -> None:
        super().__init__()
        self.prior = prior
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def forward(self, scores: Tensor) -> Tensor:
        """Standardise scores ``(B, h, w)``."""
        return (scores.float() - self.mean) / self.std

    @torch.no_grad()
    def fit(self, scores: Tensor, inside: Tensor | None = None) -> Tensor:
        """Learn mean and standard deviation.

        Args:
            scores (Tensor): Scores of normal images, ``(N, h, w)``.
            inside (Tensor | None): Cells of the region of interest, boolean, ``(h, w)``. Defaults to ``None``: all.

        Returns:
            Tensor: These scores, each image standardised by the statistics of the others (leave one image out):
            thresholds from scores that an image had a part in would let too many new normals through.
        """
        inside = torch.ones_like(scores[0], dtype=torch.bool) if inside is None else inside
        exact = scores.double()
        first, second = exact.sum(0), exact.square().sum(0)
        mean, std = _mean_and_std(first, second, len(scores), self.prior, inside)
        self.mean.copy_(mean)
        self.std.copy_(std)
        if len(scores) == 1:
            return self(scores)
        left_out = []
        for image in exact:
            mean, std = _mean_and_std(first - image, second - image.square(), len(scores) - 1, self.prior, inside)
            left_out.append(((image - mean) / std).float())
        return torch.stack(left_out)


def _mean_and_std(first: Tensor, second: Tensor, images: int, prior: float, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Shrunk mean and standard deviation of every location, ``(h, w)`` each, from sums of scores and of squares."""
    weight = images / (images + prior)
    mean, square = first / images, second / images
    variance = (square - mean.square()).clamp_min(0)
    whole_mean = mean[inside].mean()
    whole = (square[inside].mean() - whole_mean.square()).clamp_min(0)
    std = (weight * variance + (1 - weight) * whole).sqrt()
    shrunk = weight * mean + (1 - weight) * whole_mean
    return shrunk.masked_fill(~inside, torch.inf), std.clamp_min(std[inside].median().clamp_min(1e-6))
