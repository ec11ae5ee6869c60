# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Figure of reconstructions by different encoders (figure 5)."""

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.plotting.arrays import to_array
from anomalib_vmpfd.plotting.heatmap_figure import Panel, heatmap_figure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anomalib.models import AnomalibModule


def reconstruction_comparison(images: Tensor, models: "Mapping[str, AnomalibModule]", panel_size: int = 160) -> Figure:
    """Reconstructions of the same images by different encoders, figure 5.

    Args:
        images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``, one row each.
        models (Mapping[str, AnomalibModule]): Trained models by label that reconstruct pixels, e.g.
            ``{"CNN": VmpfdAd(encoder="cnn", ...), "ViM": VmpfdAd(encoder="vim", ...)}``.
        panel_size (int): Longer side of a panel in pixels.

    Returns:
        Figure: Input and each model's reconstruction with its mean squared error.

    Raises:
        ValueError: If a model does not reconstruct pixels.
    """
    panels: list[list[Panel]] = [[Panel("Input", to_array(image))] for image in images]
    for label, model in models.items():
        explained = model.explain(images)
        if "reconstruction" not in explained:
            msg = f"{label} does not reconstruct pixels; build it as configs/vmpfd_ad_paper.yaml does."
            raise ValueError(msg)
        reconstructed = explained["reconstruction"].cpu()
        target = F.interpolate(images, reconstructed.shape[-2:], mode="bilinear", antialias=True, align_corners=False)
        errors = (reconstructed - target).square().mean((1, 2, 3))
        for row, image, error in zip(panels, reconstructed, errors, strict=True):
            row.append(Panel(f"{label}, MSE {error:.4f}", to_array(image)))
    return heatmap_figure(
        [panel for row in panels for panel in row],
        "Reconstructions of the same images",
        panel_size=panel_size,
        columns=len(models) + 1,
    )
