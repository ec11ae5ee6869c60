# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The pixel threshold on the scale that maps are drawn on."""

from typing import TYPE_CHECKING

import torch

from anomalib_vmpfd.anomaly.scale import unbounded

if TYPE_CHECKING:
    from anomalib.post_processing import PostProcessor


def pixel_threshold(post_processor: "PostProcessor | None", *, calibrated: bool) -> float | None:
    """Convert the threshold of predicted masks to the scale of the drawn maps.

    Args:
        post_processor (PostProcessor | None): Post-processor that thresholds the maps.
        calibrated (bool): Whether the drawn maps are calibrated (0 and 1 are quantiles of the normal images), as TAM
            is; else they are normalised anomaly maps in [0, 1].

    Returns:
        float | None: The threshold; ``None`` without a post-processor.
    """
    if post_processor is None:
        return None
    normalized = float(post_processor.normalized_pixel_threshold)
    if not calibrated:
        return normalized
    # invert the post-processor's normalisation, then the mapping of calibrated maps into (0, 1)
    raw = float(post_processor.pixel_threshold)
    if post_processor.enable_normalization:
        raw += _unbounded(normalized) * float(post_processor.pixel_max - post_processor.pixel_min)
    else:
        raw = normalized
    return _unbounded(raw)


def _unbounded(score: float) -> float:
    return float(unbounded(torch.tensor(score, dtype=torch.float64)))
