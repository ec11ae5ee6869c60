# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Plots over a number in the names of data sets or models, as ``"4 normals"`` or ``"Prn, 5 known"``."""

import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anomalib_vmpfd.plotting.style import COLORS, DASHES, MARKERS

from .summary import Summary

NUMBERED_DATASET = re.compile(r"(\d+(?:\.\d+)?) (.+)")
NUMBERED_MODEL = re.compile(r"(.+), (\d+(?:\.\d+)?) (\D+)")
METRICS = {"image_AUROC": "Image AUROC", "pixel_AP": "Pixel AP", "AUPRO": "AUPRO"}


def dataset_series(summary: Summary) -> Figure | None:
    """Draw metrics over the number in the names of the data sets, the mean of their categories.

    Args:
        summary (Summary): Results.

    Returns:
        Figure | None: A panel for each metric, a line for each model with the standard deviation over seeds as bars;
            ``None`` unless every data set's name is a number and one and the same unit.
    """
    names = list(dict.fromkeys(dataset for dataset, _ in summary.categories))
    found = [NUMBERED_DATASET.fullmatch(name) for name in names]
    if len(names) < 2 or not all(found) or len({match[2] for match in found if match}) > 1:
        return None
    numbers = [float(match[1]) for match in found if match]
    figure = Figure(figsize=(9, 3.3))
    for (metric, title), axes in zip(METRICS.items(), figure.subplots(1, len(METRICS)), strict=True):
        for index, model in enumerate(summary.models):
            cells = [summary.cell(metric, name, None, model) for name in names]
            _line(axes, index, model, numbers, cells)
        _scale(axes, numbers)
        axes.set(title=title, xlabel=found[0][2] if found[0] else "", ylabel="%")
    _legend(figure)
    return figure


def model_series(summary: Summary, metric: str = "pixel_AP") -> Figure | None:
    """Draw a metric over the number in the labels of the models, category by category.

    Args:
        summary (Summary): Results.
        metric (str): Column of the results file.

    Returns:
        Figure | None: A panel for each category, a line for each model that comes with several numbers, a level for the
            others; ``None`` unless there is such a model.
    """
    found = {model: match for model in summary.models if (match := NUMBERED_MODEL.fullmatch(model))}
    stems = list(dict.fromkeys((match[1], match[3]) for match in found.values()))
    if not any(sum((m[1], m[3]) == stem for m in found.values()) > 1 for stem in stems):
        return None
    figure = Figure(figsize=(2.6 * len(summary.categories) + 0.6, 3))
    panels = figure.subplots(1, len(summary.categories), squeeze=False)[0]
    everywhere = sorted({float(match[2]) for match in found.values()})
    for (dataset, category), axes in zip(summary.categories, panels, strict=True):
        for index, (stem, unit) in enumerate(stems):
            own = sorted((float(m[2]), model) for model, m in found.items() if (m[1], m[3]) == (stem, unit))
            cells = [summary.cell(metric, dataset, category, model) for _, model in own]
            _line(axes, index, stem, [number for number, _ in own], cells)
        for index, model in enumerate((m for m in summary.models if m not in found), start=len(stems)):
            mean, _ = summary.cell(metric, dataset, category, model)
            style = {"color": COLORS[index % len(COLORS)], "linestyle": DASHES[index % len(DASHES)]}
            axes.axhline(100 * mean, label=model, **style)
        axes.margins(y=0.1)
        axes.set(title=category, xlabel=stems[0][1], xticks=everywhere, ylim=(0, None))
    panels[0].set_ylabel(f"{METRICS.get(metric, metric)}, %")
    _legend(figure)
    return figure


def _line(axes: Axes, index: int, label: str, numbers: list[float], cells: list[tuple[float, float]]) -> None:
    means, deviations = 100 * np.array(cells).T
    known = ~np.isnan(means)
    if known.any():
        axes.errorbar(
            np.array(numbers)[known],
            means[known],
            yerr=np.nan_to_num(deviations[known]),
            label=label,
            color=COLORS[index % len(COLORS)],
            marker=MARKERS[index % len(MARKERS)],
            linestyle=DASHES[index % len(DASHES)],
        )


def _scale(axes: Axes, numbers: list[float]) -> None:
    """Equal ratios at equal distances where the numbers span more than a decade."""
    if min(numbers) > 0 and max(numbers) > 10 * min(numbers):
        axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [f"{number:g}" for number in numbers])


def _legend(figure: Figure) -> None:
    drawn = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=4, frameon=False)
