# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Figure of encoder features, reduced to three principal components (figure 6)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.plotting.arrays import to_array
from anomalib_vmpfd.plotting.heatmap_figure import Panel, heatmap_figure

if TYPE_CHECKING:
    from anomalib.models import AnomalibModule


def encoder_features(model: "AnomalibModule", images: Tensor) -> Tensor:
    """Features of a model's encoder, equation 9, ``(B, d, h, w)``.

    Args:
        model (AnomalibModule): A VmpfdAd that has an encoder.
        images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.

    Returns:
        Tensor: Output of the encoder, the input of both branches.
    """
    seen: list[Tensor] = []
    hook = model.model.encoder.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    model.explain(images)
    hook.remove()
    return seen[0]


def feature_maps(images: Tensor, features: Mapping[str, Tensor], panel_size: int = 160) -> Figure:
    """Features of different encoders, reduced to three dimensions, figure 6.

    Args:
        images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``, one row each.
        features (Mapping[str, Tensor]): Features of shape ``(B, C, h, w)`` by label.
        panel_size (int): Longer side of a panel in pixels.

    Returns:
        Figure: Input and the first three principal components of each encoder as red, green and blue.
    """
    colored = {label: principal_colors(values) for label, values in features.items()}
    panels = []
    for index, image in enumerate(images):
        panels.append(Panel("Input", to_array(image)))
        for label, values in colored.items():
            # nearest-neighbour upsampling keeps the cells visible
            size = tuple(side * max(1, 128 // side) for side in values.shape[1:3])
            cells = np.repeat(values[index], size[0] // values.shape[1], axis=0)
            panels.append(Panel(label, np.repeat(cells, size[1] // values.shape[2], axis=1)))
    return heatmap_figure(
        panels,
        "Features in three principal components",
        "equal colours within a column: equal features",
        panel_size=panel_size,
        columns=len(features) + 1,
    )


def principal_colors(features: Tensor) -> np.ndarray:
    """First three principal components of all cells ``(B, C, h, w)`` as colours ``(B, h, w, 3)`` in [0, 1]."""
    batch, channels, height, width = features.shape
    cells = features.detach().float().cpu().movedim(1, -1).reshape(-1, channels)
    cells -= cells.mean(0)
    _, _, axes = torch.linalg.svd(cells, full_matrices=False)
    # the sign of a component is arbitrary; that of its largest entry is made positive, so that results are reproducible
    axes = axes[:3] * axes[:3].gather(1, axes[:3].abs().argmax(1, keepdim=True)).sign()
    values = F.pad(cells @ axes.T, (0, 3 - len(axes)))
    low, high = values.quantile(0.02, dim=0), values.quantile(0.98, dim=0)
    values = ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return values.reshape(batch, height, width, 3).numpy()
