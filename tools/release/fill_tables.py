# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Write the tables of README.md, of the models' READMEs and of the docs from result files, between their markers.

    python tools/release/fill_tables.py            fill them
    python tools/release/fill_tables.py --check    fail where a page is not what the result files say

A marker is ``<!-- name -->``, closed by ``<!-- /name -->``: ``results`` comes from the suites side_by_side and paper,
``mmaerec`` from the first of them, ``ablation`` from development, and ``shapes``, ``robustness``, ``few-defects``,
``paper-ablation``, ``mmaerec-ablation`` and ``prn-ablation`` from the suites of these names; ``speed`` from
``results/speed/latency.csv`` and ``growth`` from ``scan_growth.csv``. The figures in ``FIGURES`` are drawn as well.
"""

import argparse
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from anomalib_vmpfd.benchmark.report.formatting import difference, markdown, percent
from anomalib_vmpfd.benchmark.report.plots import draw
from anomalib_vmpfd.benchmark.report.summary import Summary, load_published, summarise
from anomalib_vmpfd.benchmark.report.tables import INTERVAL
from anomalib_vmpfd.benchmark.report.uncertainty import differences, mean_difference
from anomalib_vmpfd.benchmark.results import Results
from anomalib_vmpfd.benchmark.suite import load_suite

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "src/anomalib_vmpfd/models/vmpfd_ad/README.md",
    "src/anomalib_vmpfd/models/prn/README.md",
    "src/anomalib_vmpfd/models/mmaerec/README.md",
    "docs/export.md",
    "docs/few-defects.md",
)
FIGURES = {
    "docs/images/few_defects.svg": ("few_defects", "model_series.svg"),
    "docs/images/paper_losses.svg": ("paper", "losses_00_MVTecAD_screw.svg"),
}
METRICS = {"image_AUROC": "image AUROC", "pixel_AUROC": "pixel AUROC", "AUPRO": "AUPRO"}


def accuracy(suite: str, rows: pd.DataFrame, published: str | None = None, beside: str | None = None) -> str:
    """One row a model: image AUROC, pixel AUROC and AUPRO of every category and their means, and a published row.

    ``beside`` is a suite on the same data whose models are put below those of ``suite``.
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
    for model in dict.fromkeys(rows.model):
        means = rows[rows.model == model].groupby("category")[list(METRICS)].mean()
        cells = [_three(means.loc[c]) if c in means.index else "-" for c in categories]
        whole = len(means) == len(categories)
        lines.append([model, *cells, _three(means.mean()) if whole else "-", _training(rows[rows.model == model])])
    if published:
        known = load_published()
        known = known[known.model == published].set_index("category")
        cells = [_three(known.loc[c]) if c in known.index else "-" for c in categories]
        lines.append([f"{published}, published", *cells, "-", "-"])
    table = markdown(["model", *categories, "mean", "training, s (steps)"], lines)
    compared = _differences(suite) if len(set(rows.model)) > 1 else ""
    return f"{_described(suites, table, rows)}{deviations}{compared}"


def mmaerec(rows: pd.DataFrame) -> str:
    """Mmaerec beside its paper."""
    return accuracy("side_by_side", rows[rows.model == "Mmaerec"], "MMAERec")


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
        for dataset in load_suite(ROOT / "configs" / "benchmark" / "robustness.yaml").datasets
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


def _summary(suite: str) -> tuple[Summary, Results]:
    results = Results(ROOT / "results" / suite)
    return summarise(load_suite(ROOT / "configs" / "benchmark" / f"{suite}.yaml"), results), results


def _differences(suite: str) -> str:
    """How sure the differences in mean image AUROC to the first model are, where scores of the images are kept."""
    if not (ROOT / "results" / suite / "predictions").is_dir():
        return ""
    numbers, kept = _summary(suite)
    means = {model: mean_difference(numbers, by) for model, by in differences(numbers, kept).items()}
    listed = "; ".join(f"{model} {difference(mean)}" for model, mean in means.items() if mean)
    if not listed:
        return ""
    return f"\n\nMean image AUROC less that of {numbers.models[0]}, at seeds that both have: {listed}. {INTERVAL}"


def speed(rows: pd.DataFrame) -> str:
    """Latency of one image and throughput of sixteen, beside the default in the same run, and what was promised."""
    # matrix products and the bare PDN are there for the ratios
    models = rows[~rows.model.str.startswith(("matrix product", "PDN"))]
    own = models.latency_ms_median.iloc[0]
    lines = []
    for names, group in models.groupby(["model", "backend", "precision", "memory_format"], sort=False):
        batches = group.set_index("batch")
        sixteen = f"{batches.throughput_ips[16]:.1f}" if 16 in batches.index else "-"
        one = batches.latency_ms_median[1]
        lines.append([*names, f"{one:.0f}", f"{one / own:.1f}", sixteen])
    table = markdown(
        ["model", "backend", "precision", "layout", "ms, one image", "times the first row", "images/s, batch 16"],
        lines,
    )
    first = rows.iloc[0]
    kept = pd.read_csv(ROOT / "results" / "speed" / "ratios.csv")
    ratios = markdown(
        ["measured", "", "at least", "on"],
        [
            [row.promise, f"{row.measured:.2f}", f"{row.at_least:g}", f"{row.device_name}, commit {row.commit[:7]}"]
            for row in kept.itertuples()
        ],
    )
    return (
        f"{table}\n\n{ratios}\n\n`results/speed/latency.csv` and `ratios.csv`; {first.device} ({first.device_name}), "
        f"{first.threads} threads, torch {first.torch}, commit {first.commit[:7]}."
    )


def growth(rows: pd.DataFrame) -> str:
    """Time and memory of every scan from 256 to 4,096 tokens, over linear growth."""
    first = rows.iloc[0]
    names = {
        "vim-chunked": "ViM block, PyTorch scan",
        "vim-c": "ViM block, C scan",
        "chunked": "PyTorch scan alone",
        "c": "C scan alone",
        "attention": "attention block",
    }
    columns = {"forward_ms": "forward", "forward_backward_ms": "forward and backward", "peak_memory_mb": "peak memory"}
    times = rows[rows.tokens.isin([256, 4096])].pivot_table(index="backend", columns="tokens", values=list(columns))
    lines = [
        [name, *(f"{times[column][4096][key] / times[column][256][key] / 16:.2f}" for column in columns)]
        for key, name in names.items()
    ]
    return (
        f"{markdown(['256 to 4,096 tokens, over linear', *columns.values()], lines)}\n\n"
        f"`results/speed/scan_growth.csv`; {first.cpu}, {first.threads} thread(s), median of {first.rounds} rounds, "
        f"torch {first.torch}, commit {first.commit[:7]}."
    )


def _three(values: pd.Series) -> str:
    return " / ".join(percent(values[metric]) for metric in METRICS)


def _training(rows: pd.DataFrame) -> str:
    """Seconds and steps; of the runs on a processor where there are some, as a GPU's are no mean with them."""
    own = rows[rows.device == "cpu"] if (rows.device == "cpu").any() else rows
    told = f"{own.train_seconds.mean():.0f} ({own.train_steps.mean():.0f})"
    if len(own) < len(rows):
        return f"{told}, {len(own)} of {len(rows)} runs"
    return told if (own.device == "cpu").all() else f"{told}, GPU"


def main() -> None:
    """Fill the tables, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    ours = partial(accuracy, "side_by_side", published="VMPFD-AD", beside="paper")
    sources: dict[str, tuple[str, Callable[[pd.DataFrame], str]]] = {
        "results": ("side_by_side/results.csv", ours),
        "paper-ablation": ("paper_ablation/results.csv", partial(accuracy, "paper_ablation")),
        "ablation": ("development/results.csv", partial(accuracy, "development")),
        "shapes": ("shapes/results.csv", partial(accuracy, "shapes")),
        "robustness": ("robustness/results.csv", robustness),
        "mmaerec": ("side_by_side/results.csv", mmaerec),
        "mmaerec-ablation": ("mmaerec_ablation/results.csv", partial(accuracy, "mmaerec_ablation")),
        "few-defects": ("few_defects/results.csv", partial(few_defects, "few_defects")),
        "prn-ablation": ("prn_ablation/results.csv", partial(few_defects, "prn_ablation")),
        "speed": ("speed/latency.csv", speed),
        "growth": ("speed/scan_growth.csv", growth),
    }
    tables = {}
    for name, (file, table) in sources.items():
        path = ROOT / "results" / file
        tables[name] = table(pd.read_csv(path)) if path.exists() else "Not measured yet."
    for figure, (suite, name) in ({} if arguments.check else FIGURES).items():
        (ROOT / figure).write_text(draw(*_summary(suite))[name][1], encoding="utf-8")
    stale = []
    for page in PAGES:
        path = ROOT / page
        text = path.read_text(encoding="utf-8")
        filled = text
        for name, table in tables.items():
            block = f"<!-- {name} -->\n\n{table}\n\n<!-- /{name} -->"
            filled = re.sub(f"<!-- {name} -->.*?<!-- /{name} -->", lambda _, b=block: b, filled, flags=re.DOTALL)
        if filled != text and arguments.check:
            stale.append(page)
        elif filled != text:
            path.write_text(filled, encoding="utf-8")
    if stale:
        sys.exit(f"{', '.join(stale)}: not what the result files say; run `python tools/release/fill_tables.py`.")


if __name__ == "__main__":
    main()
