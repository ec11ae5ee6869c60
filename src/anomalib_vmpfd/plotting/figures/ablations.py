# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Figure of an ablation: accuracy against the number of ViM blocks (figure 2)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import matplotlib as mpl
from matplotlib.figure import Figure

from anomalib_vmpfd.plotting.style import COLORS, DASHES, MARKERS, STYLE

if TYPE_CHECKING:
    import pandas as pd


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
        Figure: One line per metric: mean over categories and seeds, error bars of the standard deviation over seeds.

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
        # an axis of at least five percentage points, so that noise does not look like an effect
        low, high = axes.get_ylim()
        half = max((high - low) / 2, 2.5)
        axes.set(xlabel="ViM blocks", ylabel="%", ylim=((low + high) / 2 - half, (low + high) / 2 + half))
        axes.set_xticks(sorted(set(by_seed.index.get_level_values("depth"))))
        axes.legend(frameon=False)
    return figure
