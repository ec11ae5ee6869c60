# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Plots of a suite as SVG that adapts to the reader's light or dark colour scheme, in a page and on GitHub."""

import io
import re
from collections.abc import Callable
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from anomalib_vmpfd.benchmark.records import FPR_LIMIT
from anomalib_vmpfd.benchmark.results import Results
from anomalib_vmpfd.plotting.style import COLORS, DASHES, INK, MARKERS, STYLE

from .series import dataset_series, model_series
from .summary import Summary

SCHEME = (
    "<style>svg{color:#1c2024}svg text{font-family:system-ui,sans-serif}"
    "@media (prefers-color-scheme:dark){svg{color:#e6e9ec}}</style>"
)
METADATA = ("Creator", "Date", "Format", "Type")  # not written


def draw(summary: Summary, results: Results) -> dict[str, tuple[str, str]]:
    """Draw all plots of a suite.

    Args:
        summary (Summary): Results.
        results (Results): Folder with the scores and curves of the runs.

    Returns:
        dict[str, tuple[str, str]]: Title and SVG by file name.
    """
    if not summary.models:
        return {}
    plots = {
        "auroc_latency.svg": ("Image AUROC against latency, models with all runs", _svg(auroc_latency, summary)),
        "metrics.svg": ("Metrics, mean of all categories, models with all runs", _svg(metric_bars, summary)),
    }
    for name, title, make in (
        ("data_series.svg", "Metrics over the data sets, mean of their categories", dataset_series),
        ("model_series.svg", "Pixel AP over the models", model_series),
    ):
        if svg := _svg(make, summary):
            plots[name] = (title, svg)
    for index, (dataset, category) in enumerate(summary.categories):
        found = {model: results.predictions(key) for model, key in summary.first_runs(dataset, category).items()}
        if runs := {model: run for model, run in found.items() if run is not None}:
            name = re.sub(r"[^A-Za-z0-9_]+", "_", f"{index:02}_{dataset}_{category}") + ".svg"
            title = f"{dataset} / {category}"
            plots[f"curves_{name}"] = (f"{title}: ROC and PRO curves", _svg(curves, summary, runs, title))
            plots[f"scores_{name}"] = (
                f"{title}: image scores and the model's own threshold",
                _svg(histograms, summary, runs, title),
            )
            if terms := {model: run["losses"] for model, run in runs.items() if _is_curve(run.get("losses", {}))}:
                plots[f"losses_{name}"] = (f"{title}: terms of the losses", _svg(losses, summary, terms, title))
    return plots


def _is_curve(terms: dict[str, list[float]]) -> bool:
    return any(len(values) > 1 for values in terms.values())


def auroc_latency(summary: Summary) -> Figure:
    """Draw accuracy against latency, figure 3 of the paper.

    Args:
        summary (Summary): Results.

    Returns:
        Figure: One point per model, mean of all categories; of the device that most runs were on.
    """
    figure = Figure(figsize=(6.4, 3.6))
    axes = figure.subplots()
    # latencies of two kinds of devices do not compare
    same = summary.runs[summary.runs.device == summary.usual_device]
    latency = same.groupby("model").latency_ms.mean()
    for index, model in enumerate(summary.models):
        mean, deviation = summary.cell("image_AUROC", None, None, model)
        if np.isnan(mean) or model not in latency:
            continue
        color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
        error = None if np.isnan(deviation) else 100 * deviation
        axes.errorbar(latency[model], 100 * mean, yerr=error, color=color, marker=marker, linestyle="none", ms=8)
        axes.annotate(model, (latency[model], 100 * mean), xytext=(8, 6), textcoords="offset points")
    axes.set(xlabel="Latency of one image, ms", ylabel="Image AUROC, %", xscale="log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", which="minor", labelsize=7)
    axes.margins(0.15)
    axes.set_ylim(top=min(axes.get_ylim()[1], 101))
    return figure


def metric_bars(summary: Summary) -> Figure:
    """Draw all metrics as bars.

    Args:
        summary (Summary): Results.

    Returns:
        Figure: Groups of bars, mean of all categories, with the standard deviation over seeds.
    """
    figure = Figure(figsize=(8, 3.4))
    axes = figure.subplots()
    width = 0.8 / max(len(summary.models), 1)
    for index, model in enumerate(summary.models):
        cells = np.array([summary.cell(metric, None, None, model) for metric in summary.metrics]) * 100
        at = np.arange(len(summary.metrics)) + (index - (len(summary.models) - 1) / 2) * width
        bars = axes.bar(at, np.nan_to_num(cells[:, 0]), width * 0.92, color=COLORS[index % len(COLORS)], label=model)
        axes.bar_label(bars, [f"{x:.0f}" if x == x else "" for x in cells[:, 0]], fontsize=6, padding=1)  # noqa: PLR0124
        if not np.isnan(cells[:, 1]).all():
            axes.errorbar(at, cells[:, 0], yerr=np.nan_to_num(cells[:, 1]), fmt="none", ecolor=INK, elinewidth=1)
    names = [name.replace("_", "\n").replace("Score", "") for name in summary.metrics]
    axes.set_xticks(np.arange(len(names)), names)
    axes.set(ylabel="%", ylim=(0, 105))
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def curves(summary: Summary, runs: dict[str, dict], title: str) -> Figure:
    """Draw the image ROC, pixel ROC and PRO curves of a category.

    Args:
        summary (Summary): Results, for the order of the models.
        runs (dict[str, dict]): Scores and curves by model.
        title (str): Data set and category.

    Returns:
        Figure: The curves side by side.
    """
    figure = Figure(figsize=(9, 3.3))
    figure.suptitle(title, fontsize=10)
    panels = (
        ("image_roc", "Image ROC", "False positive rate", "True positive rate", 1),
        ("pixel_roc", "Pixel ROC", "False positive rate", "True positive rate", 1),
        ("pro", "PRO", "False positive rate", "Per-region overlap", FPR_LIMIT),
    )
    drawn = {}
    for axes, (name, label, xlabel, ylabel, limit) in zip(figure.subplots(1, 3), panels, strict=True):
        for index, model in enumerate(summary.models):
            if model in runs and name in runs[model]["curves"]:
                style = {"color": COLORS[index % len(COLORS)], "linestyle": DASHES[index % len(DASHES)]}
                drawn[model] = axes.plot(*runs[model]["curves"][name], **style, linewidth=1.6)[0]
        axes.set(title=label, xlabel=xlabel, ylabel=ylabel, xlim=(0, limit), ylim=(0, 1.01))
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def losses(summary: Summary, terms: dict[str, dict[str, list[float]]], title: str) -> Figure:
    """Draw the terms of the losses of a category over the epochs of training.

    Args:
        summary (Summary): Results, for the order of the models.
        terms (dict[str, dict[str, list[float]]]): Values of every epoch by model and term.
        title (str): Data set and category.

    Returns:
        Figure: A panel for each term.
    """
    names = list(dict.fromkeys(name for values in terms.values() for name in values))
    figure = Figure(figsize=(3 * len(names), 2.8))
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    lines = {}
    for name, axes in zip(names, panels, strict=True):
        for index, model in enumerate(summary.models):
            if values := terms.get(model, {}).get(name):
                style = {"color": COLORS[index % len(COLORS)], "linestyle": DASHES[index % len(DASHES)]}
                (lines[model],) = axes.plot(range(1, len(values) + 1), values, **style)
        axes.set(title=name, xlabel="epoch")
    figure.suptitle(title)
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def histograms(summary: Summary, runs: dict[str, dict], title: str) -> Figure:
    """Draw histograms of the image scores of normal and anomalous images, with the model's own threshold.

    Args:
        summary (Summary): Results, for the order of the models.
        runs (dict[str, dict]): Scores and curves by model.
        title (str): Data set and category.

    Returns:
        Figure: One panel per model.
    """
    models = [model for model in summary.models if model in runs]
    figure = Figure(figsize=(9, 2.4 * -(-len(models) // 2) + 0.4))
    figure.suptitle(title, fontsize=10)
    grid = list(figure.subplots(-(-len(models) // 2), 2, squeeze=False).flat)
    for axes, model in zip(grid, models, strict=False):
        scores, labels = np.array(runs[model]["scores"]), np.array(runs[model]["labels"], dtype=bool)
        bins = np.histogram_bin_edges(scores, bins=40)
        # one outline: a path for each bar would be most of a page
        filled = {"bins": bins, "histtype": "stepfilled"}
        axes.hist(scores[~labels], **filled, color=COLORS[0], alpha=0.75, label="normal")
        anomalous = {"color": COLORS[1], "edgecolor": COLORS[1], "hatch": "///"}
        axes.hist(scores[labels], **filled, alpha=0.65, label="anomalous", **anomalous)
        if runs[model]["threshold"] is not None:
            axes.axvline(runs[model]["threshold"], color=INK, linestyle="--", linewidth=1.2, label="threshold")
        axes.set(title=model, xlabel="Raw image score", ylabel="Images")
        axes.legend(fontsize=8, frameon=False)
    for axes in grid[len(models) :]:
        axes.set_axis_off()
    return figure


def _svg(make: Callable[..., Figure | None], *args: Any) -> str:  # noqa: ANN401
    """Draw as SVG in the reader's text colour and font; empty where there is nothing to draw."""
    with mpl.rc_context(cast("dict", STYLE)):
        buffer = io.StringIO()
        figure = make(*args)
        if figure is None:
            return ""
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(METADATA))
    svg = _compact(buffer.getvalue().replace(INK, "currentColor"))
    return re.sub(r"(<svg[^>]*>)", lambda match: match[1] + SCHEME, svg[svg.index("<svg") :], count=1)


def _compact(svg: str) -> str:
    """Drop what nobody sees, so that a page of many plots stays small: Matplotlib's own fonts, and digits."""
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", svg)
    # outside of tags there are names, which may hold numbers
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"-?\d+\.\d{2,}", lambda n: f"{float(n[0]):.2f}", tag[0]), svg)
    return re.sub(r"\s*\n\s*", "\n", svg)
