# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Calibration on normal images alone: the held-out split and thresholds at a false-positive rate."""

import math

import torch
from torch import Tensor

MIN_IMAGES_TO_HOLD_OUT = 10


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
    """Smallest threshold that keeps a share of at most ``fpr`` of new normals at or above it (conformal quantile).

    The ``ceil((n + 1) (1 - fpr))``-th smallest score bounds the expected false-positive rate for exchangeable images.
    With fewer than ``1 / fpr - 1`` scores no threshold can promise that; the largest score is the best to be had.

    Args:
        normal_scores (Tensor): Scores of held-out normals, any shape.
        fpr (float): False-positive rate in (0, 1).

    Returns:
        Tensor: The threshold, a scalar just above that score, as scores equal to the threshold count as anomalous.
    """
    scores = normal_scores.detach().float().flatten().sort().values
    rank = min(math.ceil((len(scores) + 1) * (1 - fpr)), len(scores))
    return torch.nextafter(scores[rank - 1], scores.new_tensor(math.inf))
