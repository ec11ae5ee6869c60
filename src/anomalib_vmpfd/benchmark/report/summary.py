# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Summary of the results file: averages over seeds and categories, and the published values."""

from dataclasses import dataclass
from importlib.resources import files
from io import StringIO

import numpy as np
import pandas as pd

from anomalib_vmpfd.benchmark.records import COLUMNS, METRICS, SKIPPED, RunKey
from anomalib_vmpfd.benchmark.results import Results
from anomalib_vmpfd.benchmark.suite import Suite

COSTS = (
    "train_seconds", "train_steps", "latency_ms", "throughput_ips", "peak_memory_mb", "base_memory_mb", "parameters",
    "flops", "checkpoint_mb",
)  # fmt: skip
GROUP = ["dataset", "category", "model"]


@dataclass
class Summary:
    """A suite's results, ready for tables and plots.

    Attributes:
        suite (Suite): The suite.
        runs (pd.DataFrame): Finished runs, numbers as numbers.
        failed (pd.DataFrame): Runs that failed.
        skipped (pd.DataFrame): Runs that were not started, for lack of weights.
        categories (list[tuple[str, str]]): Data set and category of each table row, in the suite's order.
        models (list[str]): Labels that have a finished run, in the suite's order.
        published (pd.DataFrame): Published values of the methods the suite asks for.
    """

    suite: Suite
    runs: pd.DataFrame
    failed: pd.DataFrame
    skipped: pd.DataFrame
    categories: list[tuple[str, str]]
    models: list[str]
    published: pd.DataFrame

    @property
    def metrics(self) -> list[str]:
        """list[str]: Metrics that some run has."""
        return [metric for metric in METRICS if self.runs[metric].notna().any()]

    @property
    def methods(self) -> list[str]:
        """list[str]: Published methods with a value for one of the categories."""
        known = {*self.categories, *((dataset, "mean") for dataset in self.complete_datasets)}
        keys = zip(self.published.dataset, self.published.category, self.published.model, strict=True)
        return list(dict.fromkeys(method for dataset, category, method in keys if (dataset, category) in known))

    @property
    def complete_datasets(self) -> list[str]:
        """list[str]: Data sets with all published categories in the suite, so that their means are comparable."""
        found = []
        for dataset in dict.fromkeys(dataset for dataset, _ in self.categories):
            theirs = set(self.published[self.published.dataset == dataset].category) - {"mean"}
            if theirs and theirs <= {category for name, category in self.categories if name == dataset}:
                found.append(dataset)
        return found

    @property
    def usual_device(self) -> str:
        """str: Kind of device that most runs were on, ``"cpu"`` or ``"cuda"``; empty without runs."""
        return next(iter(self.runs.device.mode()), "")

    def over_seeds(self) -> pd.DataFrame:
        """Average runs over their seeds.

        Returns:
            pd.DataFrame: One row per data set, category and model; columns ``(metric, "mean" | "std" | "count")``.
                Costs are of runs on the kind of device that most runs were on, as those of two kinds have no mean.
        """
        runs = self.runs.copy()
        runs.loc[runs.device != self.usual_device, list(COSTS)] = np.nan
        return runs.groupby(GROUP)[[*METRICS, *COSTS]].agg(["mean", "std", "count"])

    def cell(self, metric: str, dataset: str | None, category: str | None, model: str) -> tuple[float, float]:
        """Average a metric over seeds, for one category or over the categories of one or all data sets.

        Args:
            metric (str): Column of the results file.
            dataset (str | None): Data set, or ``None`` for all.
            category (str | None): Category, or ``None`` for the mean over the categories.
            model (str): Label.

        Returns:
            tuple[float, float]: Mean, and standard deviation over the seeds (NaN for one seed). Both are NaN if a
                category has no run, as means over different categories are not comparable; one that no model has the
                metric of takes no part.
        """
        measured = self.runs.groupby(["dataset", "category"])[metric].count()
        without = set(measured.index[measured == 0])  # as pixels where there are no masks
        asked = [key for key in self.categories if dataset in {None, key[0]} and category in {None, key[1]}]
        wanted = [key for key in asked if key not in without]
        runs = self.runs[self.runs.model == model].set_index(["dataset", "category"])[["seed", metric]].dropna()
        runs = runs[runs.index.isin(wanted)]
        if set(runs.index) < set(wanted):
            return float("nan"), float("nan")
        by_seed = runs.groupby("seed")[metric].agg(["mean", "count"])
        complete = by_seed[by_seed["count"] == len(wanted)]["mean"]
        return complete.mean(), complete.std()

    def lines(self) -> list[tuple[str, str | None, str | None]]:
        """List the rows of a table: every category, the mean of each data set with several, the mean of all.

        Returns:
            list[tuple[str, str | None, str | None]]: Title, data set and category as :meth:`cell` takes them.
        """
        lines: list[tuple[str, str | None, str | None]] = [(f"{d} / {c}", d, c) for d, c in self.categories]
        datasets = [dataset for dataset, _ in self.categories]
        lines += [(f"{name} mean", name, None) for name in dict.fromkeys(datasets) if datasets.count(name) > 1]
        return lines + ([("Mean of all", None, None)] if len(set(datasets)) > 1 else [])

    def published_value(self, metric: str, dataset: str | None, category: str | None, method: str) -> float:
        """Look up a published value.

        Args:
            metric (str): Column of the results file.
            dataset (str | None): Data set.
            category (str | None): Category, or ``None`` for the published mean, if the suite has all its categories.
            method (str): Published method.

        Returns:
            float: The value, NaN if there is none.
        """
        if metric not in self.published or (category is None and dataset not in self.complete_datasets):
            return float("nan")
        theirs = self.published[(self.published.dataset == dataset) & (self.published.model == method)]
        values = theirs[theirs.category == (category or "mean")][metric]
        return values.iloc[0] if len(values) else float("nan")

    def seeds(self, dataset: str, category: str, model: str) -> list[int]:
        """List the seeds with a run.

        Args:
            dataset (str): Data set.
            category (str): Category.
            model (str): Label.

        Returns:
            list[int]: Seeds, sorted.
        """
        ours = self.runs
        return sorted(ours[(ours.dataset == dataset) & (ours.category == category) & (ours.model == model)].seed)

    def first_runs(self, dataset: str, category: str) -> dict[str, RunKey]:
        """Choose one run per model, for plots and pictures.

        Args:
            dataset (str): Data set.
            category (str): Category.

        Returns:
            dict[str, RunKey]: Run of the lowest seed by model; models without a run are missing.
        """
        return {
            model: RunKey(self.suite.suite, model, dataset, category, int(seeds[0]))
            for model in self.models
            if (seeds := self.seeds(dataset, category, model))
        }


def summarise(suite: Suite, results: Results) -> Summary:
    """Read the results of a suite.

    Args:
        suite (Suite): The suite; its order of models and categories is that of the report.
        results (Results): Its results.

    Returns:
        Summary: The summary. Results of models or categories that are no longer in the suite's file come last.
    """
    # files of older versions lack the younger columns
    everything = pd.DataFrame(results.rows(), columns=COLUMNS, dtype=str).fillna("")
    if everything.empty:
        msg = f"There are no results in {results.folder}; run the benchmark without --report-only first."
        raise ValueError(msg)
    was_skipped = everything.status.str.startswith(SKIPPED)
    rows = everything[~was_skipped]
    ok = rows[rows.status == "ok"].copy()
    for name in (*METRICS, *COSTS, "seed"):
        ok[name] = pd.to_numeric(ok[name], errors="coerce")
    models = [*(model.label for model in suite.models), *rows.model]
    categories = [(dataset.name, category) for dataset in suite.datasets for category in dataset.categories]
    present = set(zip(rows.dataset, rows.category, strict=True))
    categories += list(zip(rows.dataset, rows.category, strict=True))
    published = load_published()
    if suite.published != ["all"]:
        published = published[published.model.isin(suite.published)]
    return Summary(
        suite=suite,
        runs=ok,
        failed=rows[rows.status != "ok"],
        skipped=everything[was_skipped],
        categories=[key for key in dict.fromkeys(categories) if key in present],
        models=[label for label in dict.fromkeys(models) if label in set(ok.model)],
        published=published,
    )


def load_published() -> pd.DataFrame:
    """Read the published values, as they are printed.

    They are tables 2 to 4 of the VMPFD-AD paper, 1 to 4 of the MMAERec paper and 1, 2, 7 and 8 of the PRN paper.
    PatchCore and P-SVDD on BTAD stand in the first two and are kept once; category 02 of PatchCore is 79.3 in
    the first and 79.9 in the second.

    Returns:
        pd.DataFrame: Columns dataset, category (``mean`` is the published mean), model, image_AUROC, pixel_AUROC,
            pixel_AP and AUPRO as fractions, source.
    """
    text = files(__package__).joinpath("published.csv").read_text(encoding="utf-8")
    return pd.read_csv(StringIO(text), dtype={"category": str})
