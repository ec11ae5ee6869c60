# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The report as Markdown, ``report.md``."""

from anomalib_vmpfd.benchmark.records import METRICS
from anomalib_vmpfd.benchmark.results import Results

from .conditions import conditions
from .formatting import escape, markdown
from .summary import Summary
from .tables import (
    FALSE_POSITIVES,
    INTERVAL,
    TITLES,
    cost_table,
    difference_table,
    false_positive_table,
    metric_table,
    not_run,
)


def report(summary: Summary, results: Results, plots: dict[str, str]) -> str:
    """Write the Markdown report.

    Args:
        summary (Summary): Results.
        results (Results): Folder with the scores of the runs.
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
    if table := difference_table(summary, results):
        title = f"## Image AUROC less that of {escape(summary.models[0])}, %"
        parts += [title, "", f"At the seeds that both models have; {INTERVAL}", "", table, ""]
    if table := false_positive_table(summary, results):
        parts += ["## False-positive rate at the model's own threshold, %", "", FALSE_POSITIVES, "", table, ""]
    if summary.methods:
        parts += ["Published values: " + "; ".join(sorted(set(summary.published.source))) + ".", ""]
    if summary.models:
        parts += ["## Cost", "", cost_table(summary), ""]
    if len(summary.failed):
        rows = summary.failed[["model", "dataset", "category", "seed", "status"]].to_numpy().tolist()
        parts += ["## Failed runs", "", markdown(["Model", "Data set", "Category", "Seed", "Status"], rows), ""]
    if skipped := not_run(summary):
        parts += ["## Not run", "", *(f"- {escape(f'{model}, {runs}: {why}')}" for model, runs, why in skipped), ""]
    if plots:
        parts += ["## Plots", "", *(f"![{escape(title)}](plots/{name})\n" for name, title in plots.items())]
    return "\n".join(parts).rstrip() + "\n"
