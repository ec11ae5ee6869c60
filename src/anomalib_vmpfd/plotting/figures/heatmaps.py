# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Figures of heatmaps: models side by side (figure 4) and results of randomly drawn images (figure 7)."""

from typing import TYPE_CHECKING

import torch
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.anomaly.scale import quantiles
from anomalib_vmpfd.plotting.arrays import to_array
from anomalib_vmpfd.plotting.heatmap_figure import Panel, heatmap_figure
from anomalib_vmpfd.plotting.threshold import pixel_threshold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anomalib.models import AnomalibModule

VERDICTS = {(True, True): "found", (True, False): "missed", (False, True): "false alarm", (False, False): "passed"}


def heatmap_comparison(
    images: Tensor,
    models: "Mapping[str, AnomalibModule]",
    normals: Tensor,
    masks: Tensor | None = None,
    panel_size: int = 160,
) -> Figure:
    """Heatmaps of several models for the same images, figure 4.

    Args:
        images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``, one row each.
        models (Mapping[str, AnomalibModule]): Trained models by label; any of anomalib's.
        normals (Tensor): Normal images of shape ``(N, 3, H, W)``, by which the maps of every model are scaled.
        masks (Tensor | None): Ground truth of shape ``(B, H, W)``.
        panel_size (int): Longer side of a panel in pixels.

    Returns:
        Figure: Input, ground truth and each model's map, on one scale: 0 and 1 are the 90 % and 99.5 % quantiles of the
        model's maps of ``normals``, so that maps of different models are comparable.
    """
    maps = {}
    for label, model in models.items():
        start, end = quantiles([_raw_maps(model, normals)], (0.9, 0.995))
        raw = (_raw_maps(model, images) - start) / (end - start).clamp_min(1e-12)
        maps[label] = F.interpolate(raw[:, None], images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    panels = []
    for index, image in enumerate(images):
        panels.append(Panel("Input", to_array(image)))
        if masks is not None:
            panels.append(Panel("Ground truth", masks[index].float().cpu().numpy(), "mask"))
        panels += [Panel(label, m[index].numpy(), "map") for label, m in maps.items()]
    return heatmap_figure(
        panels,
        "Heatmaps of the same images",
        f"0 and 1: 90 % and 99.5 % of the pixels of {len(normals)} good images",
        panel_size=panel_size,
        columns=len(panels) // len(images),
    )


def random_results(
    images: Tensor,
    labels: Tensor,
    model: "AnomalibModule",
    count: int = 8,
    seed: int = 0,
    panel_size: int = 160,
) -> Figure:
    """Results of randomly drawn images, failures included, figure 7.

    Args:
        images (Tensor): Test images in [0, 1] of shape ``(N, 3, H, W)`` to draw from.
        labels (Tensor): Whether each is anomalous, ``(N,)``.
        model (AnomalibModule): Trained model.
        count (int): Number of images shown.
        seed (int): Seed of the draw.
        panel_size (int): Longer side of a panel in pixels.

    Returns:
        Figure: Pairs of input with the contour of the predicted mask, and heatmap; the title of an input is the
        verdict: found, missed, false alarm or passed.
    """
    total = len(images)
    drawn, _ = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count].sort()
    images, labels = images[drawn], labels[drawn].bool()
    with torch.inference_mode():
        seen = model.eval()(images.to(model.device))
        maps = _calibrated_maps(model, images)
    size = seen.anomaly_map.shape[-2:]
    shown = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    judged = seen.pred_label.reshape(-1).bool()
    calibrated = maps is not None
    if maps is None:
        maps = seen.anomaly_map.reshape(-1, *size).float().cpu()
    panels = []
    for index in range(len(drawn)):
        verdict = VERDICTS[bool(labels[index]), bool(judged[index])]
        contour = seen.pred_mask.reshape(-1, *size)[index].cpu().numpy()
        panels += [
            Panel(
                f"{verdict}, {float(seen.pred_score.reshape(-1)[index]):.2f}", to_array(shown[index]), contour=contour
            ),
            Panel("", maps[index].numpy(), "map"),
        ]
    return heatmap_figure(
        panels,
        f"{len(drawn)} of {total} images, drawn at random",
        "score of each image, threshold at 0.5",
        scale=None if calibrated else Normalize(0, 1, clip=True),
        threshold=pixel_threshold(model.post_processor, calibrated=calibrated),
        panel_size=panel_size,
        columns=min(4, len(panels)),
    )


def _calibrated_maps(model: "AnomalibModule", images: Tensor) -> Tensor | None:
    """TAM ``(B, h, w)`` of models whose ``explain`` returns it."""
    if not hasattr(model, "explain"):
        return None
    tam = model.explain(images).get("tam")
    return None if tam is None else tam.squeeze(1).float().cpu()


def _raw_maps(model: "AnomalibModule", images: Tensor) -> Tensor:
    """Maps ``(B, h, w)`` before post-processing: TAM where the model has one, else its anomaly map."""
    with torch.inference_mode():
        if (tam := _calibrated_maps(model, images)) is not None:
            return tam
        images = images.to(model.device)
        prepared = model.pre_processor(images) if model.pre_processor else images
        anomaly_map = model.model.eval()(prepared).anomaly_map
    return anomaly_map.reshape(len(images), *anomaly_map.shape[-2:]).float().cpu()
