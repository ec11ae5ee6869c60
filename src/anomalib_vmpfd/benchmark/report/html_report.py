# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The report as one self-contained HTML file, without a server or network access."""

import base64
import gzip
import math
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from anomalib_vmpfd.benchmark.results import Results

from .conditions import conditions
from .formatting import difference, interval, percent
from .gallery import Picture
from .summary import Summary
from .tables import COST_TITLES, FALSE_POSITIVES, INTERVAL, difference_rows, false_positive_rows, not_run
from .uncertainty import placements

SHORT = {
    "image_AUROC": "Image AUROC",
    "image_AP": "Image AP",
    "image_F1Score": "Image F1",
    "pixel_AUROC": "Pixel AUROC",
    "pixel_AP": "Pixel AP",
    "pixel_F1Score": "Pixel F1",
    "pixel_IoU": "Pixel IoU",
    "AUPRO": "AUPRO",
    "AUPIMO": "AUPIMO",
}


def render(
    summary: Summary,
    results: Results,
    plots: dict[str, tuple[str, str]],
    pictures: list[Picture],
) -> str:
    """Write the page.

    Args:
        summary (Summary): Results.
        results (Results): Folder with the scores of the runs.
        plots (dict[str, tuple[str, str]]): Title and SVG by file name.
        pictures (list[Picture]): Gallery, may be empty.

    Returns:
        str: HTML, with all names escaped.
    """
    environment = Environment(loader=PackageLoader(__package__, "page"), autoescape=True, trim_blocks=True)
    environment.lstrip_blocks = True
    page = files(__package__) / "page"
    kinds = kind_rows(summary, results)
    return environment.get_template("report.html").render(
        suite=summary.suite.suite,
        style=Markup(page.joinpath("report.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        script=Markup(page.joinpath("report.js").read_text(encoding="utf-8")),  # noqa: S704
        conditions=conditions(summary),
        models=summary.models,
        categories=[f"{dataset} / {category}" for dataset, category in summary.categories],
        kinds=sorted({row["kind"] for row in kinds} | {picture.kind for picture in pictures}),
        columns=_columns(summary),
        rows=result_rows(summary),
        uncertain=uncertain_tables(summary, results),
        kind_rows=kinds,
        failed=summary.failed.to_dict("records"),
        skipped=not_run(summary),
        plots=[
            {"title": title, "source": _packed(svg), "category": title.rsplit(": ", 1)[0] if ": " in title else ""}
            for title, svg in plots.values()
        ],
        pictures=pictures,
    )


def result_rows(summary: Summary) -> list[dict]:
    """List the rows of the results table.

    Args:
        summary (Summary): Results.

    Returns:
        list[dict]: One per data set, category and model, mean over the seeds; ``cells`` are text and sort value.
    """
    rows = []
    averages = summary.over_seeds()
    for dataset, category in summary.categories:
        for model in summary.models:
            if (dataset, category, model) not in averages.index:
                continue
            row = averages.loc[dataset, category, model]
            cells = [_percent(row[metric, "mean"], row[metric, "std"]) for metric in summary.metrics]
            cells += [
                _percent(summary.published_value(metric, dataset, category, method))
                for metric, method in _published_columns(summary)
            ]
            for name, (_, scale, digits) in COST_TITLES.items():
                value = row[name, "mean"] * scale
                cells.append(("-", "") if math.isnan(value) else (f"{value:,.{digits}f}", value))
            seeds = len(summary.seeds(dataset, category, model))
            rows.append({"category": f"{dataset} / {category}", "model": model, "seeds": seeds, "cells": cells})
    return rows


def kind_rows(summary: Summary, results: Results) -> list[dict]:
    """List the image AUROC and the detection rate of each model by kind of defect.

    Args:
        summary (Summary): Results.
        results (Results): Folder with the scores of the runs.

    Returns:
        list[dict]: One per category and kind; ``cells`` are AUROC and detection rate of each model, first seed.
    """
    rows = []
    for dataset, category in summary.categories:
        found: dict[str, dict[str, tuple]] = {}
        counts: dict[str, int] = {}
        for model, key in summary.first_runs(dataset, category).items():
            if (run := results.predictions(key)) is None:
                continue
            images = pd.DataFrame({name: run[name] for name in ("images", "labels", "scores", "decisions")})
            images["kind"] = images.images.str.rsplit("/", n=1).str[0]
            images["placement"] = placements(images.labels, images.scores)
            for kind, some in images[images.labels == 1].groupby("kind"):
                counts[kind] = len(some)
                found.setdefault(kind, {})[model] = (some.placement.mean(), some.decisions.mean())
        for kind, by_model in found.items():
            nothing = (math.nan, math.nan)
            cells = [_percent(value) for model in summary.models for value in by_model.get(model, nothing)]
            rows.append({"category": f"{dataset} / {category}", "kind": kind, "count": counts[kind], "cells": cells})
    return rows


def uncertain_tables(summary: Summary, results: Results) -> list[dict]:
    """The tables whose numbers have intervals over the test images.

    Args:
        summary (Summary): Results.
        results (Results): Folder with the scores of the runs.

    Returns:
        list[dict]: ``name``, ``title``, ``text``, ``columns`` and ``rows`` of each; cells are text and sort value.
    """
    tables: list[tuple[str, str, str, list[str], Any, Any]] = [
        (
            "differences",
            f"Image AUROC less that of {summary.models[0]}" if summary.models else "",
            f"In percent, at the seeds that both models have. {INTERVAL}",
            summary.models[1:],
            difference,
            difference_rows(summary, results),
        ),
        (
            "false-positives",
            "False-positive rate at the model's own threshold",
            f"In percent. {FALSE_POSITIVES.replace('`', '')}",
            summary.models,
            interval,
            false_positive_rows(summary, results),
        ),
    ]
    return [
        {
            "name": name,
            "title": title,
            "text": text,
            "columns": columns,
            "rows": [(label, [(write(cell), cell[0] if cell else "") for cell in cells]) for label, cells in rows],
        }
        for name, title, text, columns, write, rows in tables
        if rows
    ]


def _columns(summary: Summary) -> list[str]:
    published = [f"{method}, published {SHORT[metric].lower()}" for metric, method in _published_columns(summary)]
    return [
        *(SHORT[metric] for metric in summary.metrics),
        *published,
        *(title for title, _, _ in COST_TITLES.values()),
    ]


def _published_columns(summary: Summary) -> list[tuple[str, str]]:
    return [
        (metric, method)
        for method in summary.methods
        for metric in ("image_AUROC", "pixel_AUROC")
        if any(not math.isnan(summary.published_value(metric, *key, method)) for key in summary.categories)
    ]


def _percent(mean: float, deviation: float = math.nan) -> tuple[str, float | str]:
    return percent(mean, deviation), "" if math.isnan(mean) else mean


def _packed(svg: str) -> str:
    """An SVG for the page's script to unpack: as text, the plots of fifteen categories are megabytes."""
    return base64.b64encode(gzip.compress(svg.encode(), mtime=0)).decode()
