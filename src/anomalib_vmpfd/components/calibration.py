# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Calibration on normal images alone: the held-out split, quantiles, thresholds and bounded scores."""

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger(__name__)

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


def quantiles(values: Sequence[Tensor], q: Sequence[float]) -> Tensor:
    """Quantiles over all values of any number of tensors, linearly interpolated (equations 15, 16, 18 and 19).

    ``torch.quantile`` stops at 16 M values, about 250 maps of 256 pixels a side.

    Args:
        values (Sequence[Tensor]): Tensors of any shape.
        q (Sequence[float]): Quantiles in [0, 1].

    Returns:
        Tensor: One value a quantile, float32.
    """
    flat = np.concatenate([v.detach().float().cpu().numpy().ravel() for v in values])
    return torch.from_numpy(np.quantile(flat, q)).float()


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


def bounded(scores: Tensor) -> Tensor:
    """Map real scores into (0, 1), keeping their order: ``0.5 + 0.5 s / (1 + |s|)``.

    Metrics that receive scores outside [0, 1] apply a sigmoid, which saturates in float32 at about 17 and makes ties
    of different scores; this function still tells 1,000 from 1,001.
    """
    return 0.5 + 0.5 * scores / (1 + scores.abs())
