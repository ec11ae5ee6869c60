# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The figures of the paper, drawn from one's own models and result files.

Figure 3, latency against AUROC, is :func:`anomalib_vmpfd.benchmark.plots.auroc_latency`; every benchmark draws it.

Example:
    >>> from anomalib_vmpfd.visualization.figures import heatmap_comparison
    >>> heatmap_comparison(images, {"VmpfdAd": ours, "Patchcore": theirs}, good)  # doctest: +SKIP
    <Figure size 744x612 with 1 Axes>
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.benchmark.plots import COLORS, DASHES, MARKERS, STYLE
from anomalib_vmpfd.components.calibration import quantiles

from .heatmap_figure import Panel, heatmap_figure
from .visualizer import pixel_threshold

if TYPE_CHECKING:
    import pandas as pd
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
        normals (Tensor): Images of good parts ``(N, 3, H, W)``, the same yardstick for every model.
        masks (Tensor | None): Ground truth of shape ``(B, H, W)``.
        panel_size (int): Longer side of a panel in pixels.

    Returns:
        Figure: Input, ground truth and each model's map, on the scale of all pictures: 0 and 1 are the 90 % and 99.5 %
        quantiles of the model's maps of ``normals``, so that maps of different models compare.
    """
    maps = {}
    for label, model in models.items():
        start, end = quantiles([_raw_maps(model, normals)], (0.9, 0.995))
        raw = (_raw_maps(model, images) - start) / (end - start).clamp_min(1e-12)
        maps[label] = F.interpolate(raw[:, None], images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    panels = []
    for index, image in enumerate(images):
        panels.append(Panel("Input", _image(image)))
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


def reconstruction_comparison(images: Tensor, models: "Mapping[str, AnomalibModule]", panel_size: int = 160) -> Figure:
    """What different encoders reconstruct of the same images, figure 5.

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
    panels: list[list[Panel]] = [[Panel("Input", _image(image))] for image in images]
    for label, model in models.items():
        seen = model.explain(images)
        if "reconstruction" not in seen:
            msg = f"{label} does not reconstruct pixels; build it as configs/vmpfd_ad_paper.yaml does."
            raise ValueError(msg)
        redrawn = seen["reconstruction"].cpu()
        target = F.interpolate(images, redrawn.shape[-2:], mode="bilinear", antialias=True, align_corners=False)
        errors = (redrawn - target).square().mean((1, 2, 3))
        for row, image, error in zip(panels, redrawn, errors, strict=True):
            row.append(Panel(f"{label}, MSE {error:.4f}", _image(image)))
    return heatmap_figure(
        [panel for row in panels for panel in row],
        "Reconstructions of the same images",
        panel_size=panel_size,
        columns=len(models) + 1,
    )


def encoder_features(model: "AnomalibModule", images: Tensor) -> Tensor:
    """Features of a model's encoder, equation 9, ``(B, d, h, w)``.

    Args:
        model (AnomalibModule): A VmpfdAd that has an encoder.
        images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.

    Returns:
        Tensor: What the encoder gives to both branches.
    """
    seen: list[Tensor] = []
    hook = model.model.encoder.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    model.explain(images)
    hook.remove()
    return seen[0]


def feature_maps(images: Tensor, features: Mapping[str, Tensor], panel_size: int = 160) -> Figure:
    """Features of different encoders in three dimensions, figure 6.

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
        panels.append(Panel("Input", _image(image)))
        for label, values in colored.items():
            # cells stay visible as squares
            size = tuple(side * max(1, 128 // side) for side in values.shape[1:3])
            cells = np.repeat(values[index], size[0] // values.shape[1], axis=0)
            panels.append(Panel(label, np.repeat(cells, size[1] // values.shape[2], axis=1)))
    return heatmap_figure(
        panels,
        "Features in three principal components",
        "equal colours in one column are equal features",
        panel_size=panel_size,
        columns=len(features) + 1,
    )


def principal_colors(features: Tensor) -> np.ndarray:
    """First three principal components of all cells ``(B, C, h, w)`` as colours ``(B, h, w, 3)`` in [0, 1]."""
    batch, channels, height, width = features.shape
    cells = features.detach().float().cpu().movedim(1, -1).reshape(-1, channels)
    cells -= cells.mean(0)
    _, _, axes = torch.linalg.svd(cells, full_matrices=False)
    # a sign is arbitrary; the largest entry decides it, so that equal features give equal pictures
    axes = axes[:3] * axes[:3].gather(1, axes[:3].abs().argmax(1, keepdim=True)).sign()
    values = F.pad(cells @ axes.T, (0, 3 - len(axes)))
    low, high = values.quantile(0.02, dim=0), values.quantile(0.98, dim=0)
    values = ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return values.reshape(batch, height, width, 3).numpy()


def random_results(
    images: Tensor,
    labels: Tensor,
    model: "AnomalibModule",
    count: int = 8,
    seed: int = 0,
    panel_size: int = 160,
) -> Figure:
    """Results of images drawn at random, failures as they come, figure 7.

    Args:
        images (Tensor): Test images in [0, 1] of shape ``(N, 3, H, W)`` to draw from.
        labels (Tensor): Whether each is anomalous, ``(N,)``.
        model (AnomalibModule): Trained model.
        count (int): Number of images shown.
        seed (int): Seed of the draw.
        panel_size (int): Longer side of a panel in pixels.

    Returns:
        Figure: Input with the outline of what was found, and the heatmap, in pairs; the title of an input is the
        verdict: found, missed, false alarm or passed.
    """
    total = len(images)
    drawn, _ = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count].sort()
    images, labels = images[drawn], labels[drawn].bool()
    with torch.inference_mode():
        seen = model.eval()(images.to(model.device))
    size = seen.anomaly_map.shape[-2:]
    shown = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    judged = seen.pred_label.reshape(-1).bool()
    calibrated = hasattr(model, "explain")
    maps = _raw_maps(model, images) if calibrated else seen.anomaly_map.reshape(-1, *size).float().cpu()
    panels = []
    for index in range(len(drawn)):
        verdict = VERDICTS[bool(labels[index]), bool(judged[index])]
        outline = seen.pred_mask.reshape(-1, *size)[index].cpu().numpy()
        panels += [
            Panel(f"{verdict}, {float(seen.pred_score.reshape(-1)[index]):.2f}", _image(shown[index]), contour=outline),
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


def blocks_accuracy(
    runs: "pd.DataFrame",
    depths: Mapping[str, int],
    metrics: Sequence[str] = ("image_AUROC", "pixel_AUROC"),
) -> Figure:
    """Accuracy against the number of ViM blocks, figure 2.

    Args:
        runs (pd.DataFrame): Rows of a ``results.csv`` of the benchmark.
        depths (Mapping[str, int]): Number of blocks of each label of its column ``model``.
        metrics (Sequence[str]): Columns to draw.

    Returns:
        Figure: One line a metric: mean over categories and seeds, bars for the deviation over seeds.

    Raises:
        ValueError: If no finished run has one of the labels.
    """
    finished = runs[(runs.status == "ok") & runs.model.isin(depths.keys())]
    if finished.empty:
        msg = f"No finished run of {', '.join(depths)}; the file has {', '.join(sorted(set(runs.model)))}."
        raise ValueError(msg)
    by_seed = finished.assign(depth=finished.model.map(depths)).groupby(["depth", "seed"])[list(metrics)].mean()
    with mpl.rc_context(cast("dict", STYLE)):
        figure = Figure(figsize=(5.2, 3.2))
        axes = figure.subplots()
        for index, metric in enumerate(metrics):
            cells = 100 * by_seed[metric].groupby("depth").agg(["mean", "std"])
            axes.errorbar(
                cells.index,
                cells["mean"],
                yerr=cells["std"].fillna(0),
                color=COLORS[index],
                marker=MARKERS[index],
                linestyle=DASHES[index],
                label=metric.replace("_", " "),
            )
        # at least five points of a per cent, or what is nothing would look like much
        low, high = axes.get_ylim()
        half = max((high - low) / 2, 2.5)
        axes.set(xlabel="ViM blocks", ylabel="%", ylim=((low + high) / 2 - half, (low + high) / 2 + half))
        axes.set_xticks(sorted(set(by_seed.index.get_level_values("depth"))))
        axes.legend(frameon=False)
    return figure


def _raw_maps(model: "AnomalibModule", images: Tensor) -> Tensor:
    """Maps ``(B, h, w)`` as the model makes them: TAM where it can explain itself, else before any post-processing."""
    with torch.inference_mode():
        if hasattr(model, "explain"):
            return model.explain(images)["tam"].squeeze(1).float().cpu()
        images = images.to(model.device)
        prepared = model.pre_processor(images) if model.pre_processor else images
        anomaly_map = model.model.eval()(prepared).anomaly_map
    return anomaly_map.reshape(len(images), *anomaly_map.shape[-2:]).float().cpu()


def _image(image: Tensor) -> np.ndarray:
    return image.detach().float().cpu().clamp(0, 1).movedim(0, -1).numpy()
