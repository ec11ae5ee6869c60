# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Calibration on normal images alone: the held-out split and thresholds at a false-positive rate."""

import math
from typing import TypeVar

import numpy as np
import torch
from scipy import special
from torch import Tensor

MIN_IMAGES_TO_HOLD_OUT = 10
EXPECTED_ABOVE = 10
EULER = 0.5772156649
SIMULATED_SCORES = 10**6

Values = TypeVar("Values", Tensor, np.ndarray)


def held_out_indices(num_images: int, fraction: float, seed: int) -> list[int]:
    """Choose the normal training images that calibrate the maps instead of training the model.

    With fewer than ten images every one is worth more in training: none is held out, and the caller calibrates on the
    training images themselves.

    Args:
        num_images (int): Number of normal training images.
        fraction (float): Share to hold out.
        seed (int): Seed of the choice; the same images for the same number and seed.

    Returns:
        list[int]: Sorted indices, empty when nothing is held out.

    Example:
        >>> len(held_out_indices(320, 0.1, seed=0))
        32
    """
    if num_images < MIN_IMAGES_TO_HOLD_OUT or fraction == 0:
        return []
    count = max(1, round(fraction * num_images))
    generator = torch.Generator().manual_seed(seed)
    return sorted(torch.randperm(num_images, generator=generator)[:count].tolist())


def threshold_at_fpr(normal_scores: Tensor, fpr: float) -> Tensor:
    """Threshold that keeps a share of about ``fpr`` of new normals at or above it.

    With many images it is the ``ceil((n + 1) (1 - fpr))``-th smallest score, which bounds the expected false-positive
    rate for exchangeable images (conformal quantile). With fewer than ten expected at or above it, that is one of the
    few largest scores and depends on chance; then it is the quantile of a Gumbel distribution with the scores' mean and
    variance: scores are maxima over many cells.

    Args:
        normal_scores (Tensor): Scores of normals as if they were new, any shape, not bounded.
        fpr (float): False-positive rate in (0, 1).

    Returns:
        Tensor: The threshold, a scalar; scores equal to it count as anomalous.
    """
    scores = normal_scores.detach().flatten().double().sort().values
    count = len(scores)
    spread = scores.std() if count > 1 else torch.zeros_like(scores[0])
    if rank := _conformal_rank(count, fpr):
        # above the score by more than rounding, which differs from processor to processor
        return (scores[rank - 1] + 1e-4 * spread).float()
    threshold = _gumbel_quantile(scores.mean(), spread, fpr)
    # normals that are all alike have no spread
    return (threshold + 1e-4 * (1 + threshold.abs()) * (spread == 0)).float()


def fpr_interval(count: int, fpr: float) -> tuple[float, float]:
    """Where the false-positive rate of :func:`threshold_at_fpr` lies with a probability of 95 %.

    The threshold comes from few normals, and others would have given another. Where it is one of their scores, the rate
    on new normals has a beta distribution, whatever that of the scores; where it is taken from a Gumbel distribution,
    the interval holds if the scores have one.

    Args:
        count (int): Number of normals, at least 2.
        fpr (float): False-positive rate in (0, 1) that was asked for.

    Returns:
        tuple[float, float]: 2.5 % and 97.5 % quantile of the rate on new normals.

    Example:
        >>> low, high = fpr_interval(320, 0.05)
        >>> f"{low:.3f} to {high:.3f}"
        '0.029 to 0.076'
    """
    if rank := _conformal_rank(count, fpr):
        low, high = special.betaincinv(count + 1 - rank, rank, (0.025, 0.975))
    else:
        # at most 4,000 trainings, fewer of many scores each, whose rates differ less
        draws = min(4000, max(400, SIMULATED_SCORES // count))
        scores = np.random.default_rng(0).gumbel(size=(draws, count))
        thresholds = _gumbel_quantile(scores.mean(axis=1), scores.std(axis=1, ddof=1), fpr)
        low, high = np.quantile(-np.expm1(-np.exp(-thresholds)), (0.025, 0.975))
    return float(low), float(high)


def _conformal_rank(count: int, fpr: float) -> int:
    """Rank, from the smallest, of the score that is the threshold; 0 where too few are expected above it."""
    return min(math.ceil((count + 1) * (1 - fpr)), count) if count * fpr >= EXPECTED_ABOVE else 0


def _gumbel_quantile(mean: Values, deviation: Values, fpr: float) -> Values:
    """What a share ``fpr`` of a Gumbel distribution of this mean and deviation lies above."""
    scale = deviation * math.sqrt(6) / math.pi
    return mean - EULER * scale - scale * math.log(-math.log1p(-fpr))
