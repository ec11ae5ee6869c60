# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Markdown tables of a suite, as they stand in ``report.md`` and the README."""

import math
from collections.abc import Iterable

from .results import METRICS, Results
from .summary import COSTS, Summary
from .uncertainty import differences, mean_difference

TITLES = {
    "image_AUROC": "Image AUROC",
    "image_AP": "Image average precision",
    "image_F1Score": "Image F1 at the model's own threshold",
    "pixel_AUROC": "Pixel AUROC",
    "pixel_AP": "Pixel average precision",
    "pixel_F1Score": "Pixel F1 at the model's own threshold",
    "pixel_IoU": "Pixel IoU at the model's own threshold",
    "AUPRO": "AUPRO (false positive rate up to 30 %)",
}
COST_TITLES = {
    "train_seconds": ("Training s", 1, 1),
    "train_steps": ("Steps", 1, 0),
    "latency_ms": ("Latency ms", 1, 1),
    "throughput_ips": ("Images/s", 1, 1),
    "peak_memory_mb": ("Peak memory MB", 1, 0),
    "base_memory_mb": ("of it libraries MB", 1, 0),
    "parameters": ("Parameters M", 1e-6, 2),
    "flops": ("GFLOPs", 1e-9, 1),
    "checkpoint_mb": ("Checkpoint MB", 1, 1),
}
PUBLISHED = "{} (published)"
PROTOCOL = (
    "Pre-processor, model and post-processor, from the host to the device and back, images in the size the model sees."
)
INTERVAL = "± is half the 95 % interval over test images (DeLong): on other images a smaller difference may turn."
MEMORY = (
    "Memory: the most the process held during training and prediction, before the metrics; on the CPU this includes "
    "the libraries. FLOPs: twice the multiply-adds of matrix products and convolutions for one image. Checkpoint "
    "without optimizer state."
)


def metric_table(summary: Summary, metric: str) -> str:
    """Write a metric as a table, a row a category and a column a model, in percent.

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


def difference_table(summary: Summary, results: Results) -> str:
    """Write how far the image AUROC of the others is from the first model's, in percent.

    Args:
        summary (Summary): Results.
        results (Results): Where the scores of the runs are.

    Returns:
        str: Markdown, or an empty string if no two models have scores of the same category.
    """
    found = differences(summary, results)
    lines = [[f"{d} / {c}", *(difference(by.get((d, c))) for by in found.values())] for d, c in summary.categories]
    if len(summary.categories) > 1:
        lines.append(["Mean of all", *(difference(mean_difference(summary, by)) for by in found.values())])
    return markdown(["Data set / category", *found], lines) if any(found.values()) else ""


def cost_table(summary: Summary) -> str:
    """Write time, memory and size as a table, means over the runs of a model.

    Args:
        summary (Summary): Results.

    Returns:
        str: Markdown.
    """
    means = summary.runs.groupby("model")[list(COSTS)].mean()
    body = []
    for model in summary.models:
        numbers = [(means.loc[model, name] * scale, digits) for name, (_, scale, digits) in COST_TITLES.items()]
        body.append([model, *("-" if math.isnan(value) else f"{value:,.{digits}f}" for value, digits in numbers)])
    return markdown(["Model", *(title for title, _, _ in COST_TITLES.values())], body)


def conditions(summary: Summary) -> list[str]:
    """Say in sentences what the numbers were measured with.

    Args:
        summary (Summary): Results.

    Returns:
        list[str]: Sentences.
    """
    runs, speed = summary.runs, summary.suite.speed
    if runs.empty:
        return [f"No run has finished, {len(summary.failed)} failed."]

    def values(name: str) -> str:
        return ", ".join(sorted({value for value in runs[name].astype(str) if value}))

    splits = set(runs.val_split)
    leak = (
        "A split from the test set lets the threshold see test images: these F1 and IoU are too good."
        if splits & {"same_as_test", "from_test"}
        else "No test image took part in training or in the threshold."
    )
    what = f"{len(runs)} runs, {len(summary.failed)} failed; seeds {values('seed')}; images {values('image_size')}; "
    where = f"Device {values('device')} ({values('device_name')}), {values('threads')} threads, "
    latency = f"Latency: median of {speed.repeats} passes of one image after {speed.warmup} to warm up; "
    throughput = f"throughput: median of {speed.batch_repeats} passes of {speed.batch_size} images. "
    plugin = f"anomalib-vmpfd {values('anomalib_vmpfd_version')} (commit {values('commit') or 'unknown'})"
    libraries = f"torch {values('torch_version')}, lightning {values('lightning_version')}, Python "
    libraries += f"{values('python_version')}; measured {values('date')}."
    return [
        what + "± is the standard deviation over seeds.",
        where + f"precision {values('precision')}.",
        latency + throughput + PROTOCOL,
        MEMORY,
        "Ranking metrics come from raw scores and maps at the model's resolution.",
        f"F1 and IoU use the threshold the model set on its validation split ({', '.join(sorted(splits))}). {leak}",
        f"anomalib {values('anomalib_version')}, {plugin}, " + libraries,
    ]


def report(summary: Summary, results: Results, plots: dict[str, str]) -> str:
    """Write the Markdown report.

    Args:
        summary (Summary): Results.
        results (Results): Where the scores of the runs are.
        plots (dict[str, str]): Titles of the plots by their file name below ``plots/``.

    Returns:
        str: Content of ``report.md``.
    """
    parts = [
        f"# Benchmark {escape(summary.suite.suite)}",
        "",
        *(f"- {escape(line)}" for line in conditions(summary)),
        "",
    ]
    for metric in METRICS:
        if table := metric_table(summary, metric):
            parts += [f"## {TITLES[metric]}, %", "", table, ""]
    if summary.models and (table := difference_table(summary, results)):
        title = f"## Image AUROC less that of {escape(summary.models[0])}, %"
        parts += [title, "", f"At the seeds that both have; {INTERVAL}", "", table, ""]
    if summary.methods:
        parts += ["Published values: " + "; ".join(sorted(set(summary.published.source))) + ".", ""]
    if summary.models:
        parts += ["## Cost", "", cost_table(summary), ""]
    if len(summary.failed):
        rows = summary.failed[["model", "dataset", "category", "seed", "status"]].to_numpy().tolist()
        parts += ["## Failed runs", "", markdown(["Model", "Data set", "Category", "Seed", "Status"], rows), ""]
    if plots:
        parts += ["## Plots", "", *(f"![{escape(title)}](plots/{name})\n" for name, title in plots.items())]
    return "\n".join(parts).rstrip() + "\n"


def percent(mean: float, deviation: float = math.nan) -> str:
    """Write a fraction as percent with one decimal.

    Args:
        mean (float): Fraction, or NaN.
        deviation (float, optional): Deviation as a fraction. Defaults to NaN: not written.

    Returns:
        str: Text.
    """
    if math.isnan(mean):
        return "-"
    return f"{100 * mean:.1f}" + ("" if math.isnan(deviation) else f" ± {100 * deviation:.1f}")


def difference(measured: tuple[float, float] | None) -> str:
    """Write a difference and half its 95 % interval in percent.

    Args:
        measured (tuple[float, float] | None): Difference and its standard error as fractions, if they are known.

    Returns:
        str: Text.
    """
    if measured is None or math.isnan(measured[0]):
        return "-"
    return f"{100 * measured[0]:+.1f}" + ("" if math.isnan(measured[1]) else f" ± {196 * measured[1]:.1f}")


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a Markdown table, first column left, the others right.

    Args:
        header (Iterable[str]): Column titles.
        rows (Iterable[Iterable[str]]): Cells.

    Returns:
        str: Markdown.
    """
    header = [escape(title) for title in header]
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *([escape(str(cell)) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape(text: str) -> str:
    """Keep a name from breaking a table or passing for HTML.

    Args:
        text (str): Any text.

    Returns:
        str: Markdown that shows it.
    """
    text = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("[", "\\[")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
