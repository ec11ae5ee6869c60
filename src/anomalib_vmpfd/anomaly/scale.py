# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Scales of scores and maps: quantiles of normals, and bounds that keep every ranking."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


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


def bounded(scores: Tensor) -> Tensor:
    """Map real scores into (0, 1), keeping their order: ``0.5 + 0.5 s / (1 + |s|)``.

    Metrics that receive scores outside [0, 1] apply a sigmoid, which saturates in float32 at about 17 and makes ties
    of different scores; this function still tells 1,000 from 1,001.
    """
    # every step keeps the order whatever it rounds, which s / (1 + |s|) does not
    distance = 0.5 / (1 + scores.abs())
    return torch.where(scores < 0, distance, 1 - distance)


def unbounded(scores: Tensor) -> Tensor:
    """Inverse of :func:`bounded`, for scores in [0, 1]; both ends become infinite."""
    return torch.where(scores < 0.5, 1 - 0.5 / scores, 0.5 / (1 - scores) - 1)
