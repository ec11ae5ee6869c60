# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Tables of accuracy from the result files of suites, for ``fill_tables.py``."""

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from anomalib_vmpfd.benchmark.report.formatting import difference, markdown, percent
from anomalib_vmpfd.benchmark.report.summary import Summary, load_published, summarise
from anomalib_vmpfd.benchmark.report.tables import INTERVAL
from anomalib_vmpfd.benchmark.report.uncertainty import differences, mean_difference
from anomalib_vmpfd.benchmark.results import Results
from anomalib_vmpfd.benchmark.suite import Suite, load_suite

ROOT = Path(__file__).parents[2]
PUBLISHED_ABLATIONS = Path(__file__).with_name("published_ablations.csv")
METRICS = {"image_AUROC": "image AUROC", "pixel_AUROC": "pixel AUROC", "AUPRO": "AUPRO"}


def accuracy(suite: str, rows: pd.DataFrame, published: str | None = None, beside: str | None = None) -> str:
    """One row a model: image AUROC, pixel AUROC and AUPRO of every category and their means, and a published row.

    ``beside`` is a suite on the same data whose models are put below those of ``suite``. What a paper says of the same
    ablation is the last column.
    """
    suites = [suite]
    if beside and (more := ROOT / "results" / beside / "results.csv").exists():
        suites.append(beside)
        rows = pd.concat([rows, pd.read_csv(more)], ignore_index=True)
    rows = rows[rows.status == "ok"]
    deviations = _over_seeds(rows)
    # models compare at the seeds that all of them have
    rows = rows[rows.seed.isin(set.intersection(*(set(part.seed) for _, part in rows.groupby("model"))))]
    categories = list(dict.fromkeys(rows.category))
    lines = []
    papers, source = _published_ablation(suite)
    for model in sorted(set(rows.model), key=_order(suites)):
        means = rows[rows.model == model].groupby("category")[list(METRICS)].mean()
        cells = [_three(means.loc[c]) if c in means.index else "-" for c in categories]
        whole = len(means) == len(categories)
        line = [model, *cells, _three(means.mean()) if whole else "-", _training(rows[rows.model == model])]
        lines.append([*line, papers.get(model, "-")] if papers else line)
    if published:
        known = load_published()
        known = known[known.model == published].set_index("category")
        cells = [_three(known.loc[c]) if c in known.index else "-" for c in categories]
        lines.append([f"{published}, published", *cells, "-", "-"])
    header = ["model", *categories, "mean", "training, s (steps)"]
    table = markdown([*header, "the paper"] if papers else header, lines)
    compared = _differences(suite, set(rows.model)) if len(set(rows.model)) > 1 else ""
    return f"{_described(suites, table, rows)}{source}{deviations}{compared}"


def mmaerec(rows: pd.DataFrame) -> str:
    """Mmaerec beside its paper."""
    return accuracy("side_by_side", rows[rows.model.str.startswith("Mmaerec")], "MMAERec")


def robustness(rows: pd.DataFrame) -> str:
    """One row a harder version of screw, beside screw as it is."""
    rows = rows[rows.status == "ok"]
    plain = pd.read_csv(ROOT / "results" / "side_by_side" / "results.csv")
    models = list(dict.fromkeys(rows.model))

    def cells(part: pd.DataFrame) -> list[str]:
        means = part.groupby("model")[list(METRICS)].mean()
        return [_three(means.loc[model]) if model in means.index else "-" for model in models]

    lines = [["screw as it is", *cells(plain[(plain.category == "screw") & plain.seed.isin(rows.seed)])]]
    lines += [
        [category, *cells(rows[rows.category == category])]
        for dataset in _suite("robustness").datasets
        for category in dataset.categories
    ]
    return _described(["robustness"], markdown(["", *models], lines), rows)


def few_defects(suite: str, rows: pd.DataFrame) -> str:
    """One row a model, means over the draws of the defects, with average precision, which few defects are about."""
    rows = rows[rows.status == "ok"]
    metrics = {"image_AUROC": METRICS["image_AUROC"], "pixel_AP": "pixel AP", "AUPRO": METRICS["AUPRO"]}
    categories = list(dict.fromkeys(rows.category))
    lines = []
    for model in sorted(set(rows.model), key=lambda name: re.sub(r"\d+", lambda found: found[0].zfill(3), name)):
        own = rows[rows.model == model]
        means = own.groupby("category")[list(metrics)].mean()
        draws = own.groupby("category").seed.nunique()
        cells = [
            f"{' / '.join(percent(means.loc[c, m]) for m in metrics)} ({draws[c]})" if c in means.index else "-"
            for c in categories
        ]
        lines.append([model, *cells, _training(own)])
    table = markdown(["model", *categories, "training, s (steps)"], lines)
    described = _described([suite], table, rows, metrics)
    return f"{described} In brackets: draws of the defects, of which the mean is given."


def over_data_sets(suite: str, rows: pd.DataFrame) -> str:
    """One row a model and category, one column a data set of the suite: image AUROC, mean over the seeds."""
    rows = rows[rows.status == "ok"]
    columns = [each.name for each in _suite(suite).datasets if each.name in set(rows.dataset)]
    means = rows.pivot_table(index=["model", "category"], columns="dataset", values="image_AUROC")[columns]
    lines = []
    for model in sorted(set(rows.model), key=_order([suite])):
        own = means.loc[model]
        lines += [[model, category, *_percents(values)] for category, values in own.iterrows()]
        if len(own) == rows.category.nunique() > 1:
            lines.append([model, "mean", *(percent(v) if own[c].notna().all() else "-" for c, v in own.mean().items())])
    return _described([suite], markdown(["model", "", *columns], lines), rows, {"image_AUROC": METRICS["image_AUROC"]})


def shared_model(suite: str, single: str, names: dict[str, str], rows: pd.DataFrame) -> str:
    """One row for a model of all categories, and one for a model each, of the suite ``single`` by its ``names``."""
    rows = rows[rows.status == "ok"]
    alone = pd.read_csv(ROOT / "results" / single / "results.csv")
    alone = alone[(alone.status == "ok") & alone.seed.isin(rows.seed)]
    categories = list(dict.fromkeys(rows.category))
    lines = []
    for model in sorted(set(rows.model), key=_order([suite])):
        for name, own in (
            (f"{model}, one for all", rows[rows.model == model]),
            (f"{model}, one each", alone[alone.model == names[model]]),
        ):
            means = own.groupby("category")[list(METRICS)].mean()
            cells = [_three(means.loc[c]) if c in means.index else "-" for c in categories]
            whole = set(categories) <= set(means.index)
            lines.append([name, *cells, _three(means.loc[categories].mean()) if whole else "-"])
    used = pd.concat([rows, alone[alone.model.isin(names.values()) & alone.category.isin(categories)]])
    return _described([suite, single], markdown(["model", *categories, "mean"], lines), used)


def peers(rows: pd.DataFrame) -> str:
    """One row a model: image AUROC and AUPRO on the four test sets and the four development sets."""
    metrics = {name: METRICS[name] for name in ("image_AUROC", "AUPRO")}
    suites = {
        "development": {"default": "VmpfdAd", "Patchcore": "Patchcore"},
        "side_by_side": {"VmpfdAd": "VmpfdAd", "Patchcore": "Patchcore"},
    }
    parts = [rows]
    for suite, names in suites.items():
        known = pd.read_csv(ROOT / "results" / suite / "results.csv")
        known = known[known.model.isin(names) & known.seed.isin(rows.seed)]
        parts.insert(0, known.assign(model=known.model.map(names)))
    rows = pd.concat(parts, ignore_index=True)
    rows = rows[rows.status == "ok"]
    categories = [category for dataset in _suite("peers").datasets for category in dataset.categories]
    lines = []
    for model in sorted(set(rows.model), key=_order(["peers"])):
        means = rows[rows.model == model].groupby("category")[list(metrics)].mean()
        cells = [" / ".join(_percents(means.loc[c])) if c in means.index else "-" for c in categories]
        lines.append([model, *cells, " / ".join(_percents(means.mean())) if len(means) == len(categories) else "-"])
    table = markdown(["model", *categories, "mean"], lines)
    return _described([*suites, "peers"], table, rows, metrics)


def _described(suites: list[str], table: str, rows: pd.DataFrame, metrics: dict[str, str] = METRICS) -> str:
    """The table with its metrics above it and the conditions of its rows below."""
    files = " and ".join(f"`results/{suite}/results.csv`" for suite in suites)
    seeds = ", ".join(str(s) for s in sorted(set(rows.seed)))
    commits = ", ".join(sorted({str(c)[:7] for c in rows.commit}))
    return (
        f"{' / '.join(metrics.values())}, per cent.\n\n{table}\n\n"
        f"{files}; seed {seeds}, {'; '.join(sorted(set(rows.device_name)))}; "
        f"{', '.join(sorted({str(p) for p in rows.precision}))}, commit {commits}."
    )


def _over_seeds(rows: pd.DataFrame) -> str:
    """Mean over all categories and its deviation over seeds, of the models that have several."""
    sentences = []
    for model in dict.fromkeys(rows.model):
        own = rows[rows.model == model]
        whole = own.groupby("seed").category.nunique() == rows.category.nunique()
        means = own[own.seed.isin(whole.index[whole])].groupby("seed")[list(METRICS)].mean()
        if len(means) > 1:
            cells = " / ".join(f"{percent(means[m].mean())} ± {percent(means[m].std())}" for m in METRICS)
            sentences.append(f"\n\nMean of {model} over seeds {', '.join(map(str, means.index))}: {cells}.")
    return "".join(sentences)


def suite_summary(suite: str) -> tuple[Summary, Results]:
    """What a report of the suite is written from."""
    results = Results(ROOT / "results" / suite)
    return summarise(_suite(suite), results), results


def _suite(name: str) -> Suite:
    return load_suite(ROOT / "configs" / "benchmark" / f"{name}.yaml")


def _order(suites: list[str]) -> Callable[[str], int]:
    """Places of models as in the files of their suites; any other is last."""
    files = [name for name in suites if (ROOT / "configs" / "benchmark" / f"{name}.yaml").exists()]
    labels = [model.label for name in files for model in _suite(name).models]
    return lambda label: labels.index(label) if label in labels else len(labels)


def _published_ablation(suite: str) -> tuple[dict[str, str], str]:
    """What the papers say of the models of a suite, and where it stands; nothing for most suites."""
    rows = pd.read_csv(PUBLISHED_ABLATIONS)
    rows = rows[rows.suite == suite]
    if rows.empty:
        return {}, ""
    metrics = [metric for metric in METRICS if rows[metric].notna().any()]
    cells = {row["model"]: " / ".join(percent(row[metric]) for metric in metrics) for _, row in rows.iterrows()}
    names = " / ".join(METRICS[metric] for metric in metrics)
    return cells, f"\n\nThe paper: {names}, {'; '.join(dict.fromkeys(rows.source))}."


def _differences(suite: str, shown: set[str]) -> str:
    """How sure the differences in mean image AUROC to the first model are, where scores of the images are kept."""
    if not (ROOT / "results" / suite / "predictions").is_dir():
        return ""
    numbers, kept = suite_summary(suite)
    if numbers.models[0] not in shown:
        return ""
    means = {model: mean_difference(numbers, by) for model, by in differences(numbers, kept).items()}
    listed = "; ".join(f"{model} {difference(mean)}" for model, mean in means.items() if mean)
    if not listed:
        return ""
    return f"\n\nMean image AUROC less that of {numbers.models[0]}, at seeds that both have: {listed}. {INTERVAL}"


def _percents(values: pd.Series) -> list[str]:
    return ["-" if pd.isna(value) else percent(value) for value in values]


def _three(values: pd.Series) -> str:
    return " / ".join(_percents(values[list(METRICS)]))


def _training(rows: pd.DataFrame) -> str:
    """Seconds and steps; of the runs on a processor where there are some, as a GPU's are no mean with them."""
    own = rows[rows.device == "cpu"] if (rows.device == "cpu").any() else rows
    told = f"{own.train_seconds.mean():.0f} ({own.train_steps.mean():.0f})"
    if len(own) < len(rows):
        return f"{told}, {len(own)} of {len(rows)} runs"
    return told if (own.device == "cpu").all() else f"{told}, GPU"
