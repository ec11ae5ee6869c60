# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Tables of metrics, differences and costs in Markdown, as they are in ``report.md`` and the README."""

import math

from anomalib_vmpfd.benchmark.records import SKIPPED
from anomalib_vmpfd.benchmark.results import Results

from .formatting import difference, interval, markdown, percent
from .summary import COSTS, Summary
from .uncertainty import differences, false_positive_rate, mean_difference

TITLES = {
    "image_AUROC": "Image AUROC",
    "image_AP": "Image average precision",
    "image_F1Score": "Image F1 at the model's own threshold",
    "pixel_AUROC": "Pixel AUROC",
    "pixel_AP": "Pixel average precision",
    "pixel_F1Score": "Pixel F1 at the model's own threshold",
    "pixel_IoU": "Pixel IoU at the model's own threshold",
    "AUPRO": "AUPRO (false positive rate up to 30 %)",
    "AUPIMO": "AUPIMO (false positive rate of normal images from 0.001 to 0.01 %)",
}
COST_TITLES = {
    "train_seconds": ("Training s", 1, 1),
    "train_steps": ("Steps", 1, 0),
    "latency_ms": ("Latency ms", 1, 1),
    "throughput_ips": ("Images/s", 1, 1),
    "peak_memory_mb": ("Peak memory MB", 1, 0),
    "base_memory_mb": ("thereof libraries MB", 1, 0),
    "parameters": ("Parameters M", 1e-6, 2),
    "flops": ("GFLOPs", 1e-9, 1),
    "checkpoint_mb": ("Checkpoint MB", 1, 1),
}
PUBLISHED = "{} (published)"
INTERVAL = (
    "± is half the 95 % interval over test images (DeLong): a smaller difference may change sign on other images."
)
FALSE_POSITIVES = (
    "Share of normal test images that are judged anomalous, in brackets its exact 95 % interval (Clopper-Pearson). "
    "Models of this package ask for `image_fpr`, 5 % by default: where that lies outside, the threshold misses it."
)


def metric_table(summary: Summary, metric: str) -> str:
    """Write a metric as a table in percent, with a row per category and a column per model.

    Args:
        summary (Summary): Results.
        metric (str): Column of the results file.

    Returns:
        str: Markdown, or an empty string if no run has the metric.
    """
    models = summary.models
    lines = summary.lines()
    ours = [
        [summary.cell(metric, dataset, category, model) for model in summary.models] for _, dataset, category in lines
    ]
    if all(math.isnan(mean) for cells in ours for mean, _ in cells):
        return ""
    theirs = {}
    for method in summary.methods:
        values = [summary.published_value(metric, dataset, category, method) for _, dataset, category in lines]
        if not all(map(math.isnan, values)):
            theirs[PUBLISHED.format(method)] = values
    rows = []
    for index, (title, _, _) in enumerate(lines):
        best = max((f"{mean:.3f}" for mean, _ in ours[index] if not math.isnan(mean)), default="")
        cells = [f"**{percent(*cell)}**" if f"{cell[0]:.3f}" == best else percent(*cell) for cell in ours[index]]
        rows.append([title, *cells, *(percent(values[index]) for values in theirs.values())])
    return markdown(["Data set / category", *models, *theirs], rows)


def difference_rows(summary: Summary, results: Results) -> list[tuple[str, list[tuple[float, float] | None]]]:
    """List the differences in image AUROC of every other model to the first.

    Args:
        summary (Summary): Results.
        results (Results): Folder with the scores of the runs.

    Returns:
        list[tuple[str, list[tuple[float, float] | None]]]: Title, and difference and standard error of each model, by
            category and, where there are several, of their mean; empty if no category has scores of two models.
    """
    if not summary.models:
        return []
    found = differences(summary, results)
    rows = [(f"{d} / {c}", [by.get((d, c)) for by in found.values()]) for d, c in summary.categories]
    if len(summary.categories) > 1:
        rows.append(("Mean of all", [mean_difference(summary, by) for by in found.values()]))
    return rows if any(found.values()) else []


def difference_table(summary: Summary, results: Results) -> str:
    """Write the difference in image AUROC of every other model to the first, in percent.

    Args:
        summary (Summary): Results.
        results (Results): Folder with the scores of the runs.

    Returns:
        str: Markdown, or an empty string if no category has scores of two models.
    """
    lines = [[title, *map(difference, cells)] for title, cells in difference_rows(summary, results)]
    return markdown(["Data set / category", *summary.models[1:]], lines) if lines else ""


def false_positive_rows(
    summary: Summary, results: Results
) -> list[tuple[str, list[tuple[float, float, float] | None]]]:
    """List the share of normal test images above each model's own threshold.

    Args:
        summary (Summary): Results.
        results (Results): Folder with the decisions of the runs.

    Returns:
        list[tuple[str, list[tuple[float, float, float] | None]]]: Title, and rate and both ends of its 95 % interval of
            each model, by category; empty if no run has decisions.
    """
    rows = [
        (f"{d} / {c}", [false_positive_rate(summary, results, d, c, model) for model in summary.models])
        for d, c in summary.categories
    ]
    return rows if any(any(cells) for _, cells in rows) else []


def false_positive_table(summary: Summary, results: Results) -> str:
    """Write the share of normal test images above each model's own threshold, in percent with its 95 % interval.

    Args:
        summary (Summary): Results.
        results (Results): Folder with the decisions of the runs.

    Returns:
        str: Markdown, or an empty string if no run has decisions.
    """
    lines = [[title, *map(interval, cells)] for title, cells in false_positive_rows(summary, results)]
    return markdown(["Data set / category", *summary.models], lines) if lines else ""


def not_run(summary: Summary) -> list[tuple[str, str, str]]:
    """List the models that were skipped.

    Args:
        summary (Summary): Results.

    Returns:
        list[tuple[str, str, str]]: Model, number of its runs in words, and why they were not started.
    """
    counts = summary.skipped.groupby(["model", "status"], sort=False).size()
    return [
        (model, f"{count} run{'s' if count > 1 else ''}", status.removeprefix(SKIPPED))
        for (model, status), count in counts.items()
    ]


def cost_table(summary: Summary) -> str:
    """Write time, memory and size as a table of means over the runs of a model.

    Args:
        summary (Summary): Results.

    Returns:
        str: Markdown; where runs were on several kinds of devices, a line for each of them.
    """
    means = summary.runs.groupby(["model", "device"])[list(COSTS)].mean()
    several = summary.runs.device.nunique() > 1
    body = []
    for model in summary.models:
        for device, costs in means.loc[model].iterrows():
            numbers = [(costs[name] * scale, digits) for name, (_, scale, digits) in COST_TITLES.items()]
            cells = ("-" if math.isnan(value) else f"{value:,.{digits}f}" for value, digits in numbers)
            body.append([f"{model}, {device}" if several else model, *cells])
    return markdown(["Model", *(title for title, _, _ in COST_TITLES.values())], body)
