# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly scores standardised by what is usual at their location."""

import torch
from torch import Tensor, nn


class LocationStatistics(nn.Module):
    """Standardise scores by mean and standard deviation of their location on normal images.

    Corners, edges and other high-variance locations would raise alarms on normals otherwise.

    Args:
        shape (tuple[int, int]): Number of cells ``(h, w)``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def forward(self, scores: Tensor) -> Tensor:
        """Standardise scores ``(B, h, w)``."""
        return (scores.float() - self.mean) / self.std

    @torch.no_grad()
    def fit(self, scores: Tensor) -> Tensor:
        """Learn mean and standard deviation.

        Args:
            scores (Tensor): Scores of normal images, ``(N, h, w)``.

        Returns:
            Tensor: These scores, each image standardised by the statistics of the others (leave one image out):
            thresholds from scores that an image had a part in would let too many new normals through.
        """
        scores = scores.float()
        mean, std = _mean_and_std(scores)
        self.mean.copy_(mean)
        self.std.copy_(std)
        if len(scores) == 1:
            return self(scores)
        left_out = []
        for index, image in enumerate(scores):
            mean, std = _mean_and_std(torch.cat([scores[:index], scores[index + 1 :]]))
            left_out.append((image - mean) / std)
        return torch.stack(left_out)


def _mean_and_std(scores: Tensor, prior: float = 32.0) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every location over normal images ``(N, h, w)``, each ``(h, w)``.

    Both are shrunk towards those of the whole map by ``prior`` images' worth, so that a few images suffice. Standard
    deviations below the median are raised to it: the noise of a flat background must not turn into alarms.
    """
    weight = len(scores) / (len(scores) + prior)
    mean = scores.mean(0)
    std = (weight * (scores - mean).square().mean(0) + (1 - weight) * scores.var(unbiased=False)).sqrt()
    return weight * mean + (1 - weight) * scores.mean(), std.clamp_min(std.median().clamp_min(1e-6))
