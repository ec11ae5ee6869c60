# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The figures of the paper, drawn from trained models and result files.

Figure 3, latency against AUROC, is part of every benchmark report.

Example:
    >>> from anomalib_vmpfd.plotting.figures import heatmap_comparison
    >>> heatmap_comparison(images, {"VmpfdAd": ours, "Patchcore": theirs}, good)  # doctest: +SKIP
    <Figure size 744x612 with 1 Axes>
"""

from .ablations import blocks_accuracy
from .features import encoder_features, feature_maps, principal_colors
from .heatmaps import heatmap_comparison, random_results
from .reconstructions import reconstruction_comparison

__all__ = [
    "blocks_accuracy",
    "encoder_features",
    "feature_maps",
    "heatmap_comparison",
    "principal_colors",
    "random_results",
    "reconstruction_comparison",
]
