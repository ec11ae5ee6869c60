# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Curves over a number in the names show the means that are in the results, and nothing that does not compare."""

import pytest
from by_hand import row

from anomalib_vmpfd.benchmark.records import RunKey, RunResult
from anomalib_vmpfd.benchmark.report.plots import draw
from anomalib_vmpfd.benchmark.report.series import dataset_series, model_series
from anomalib_vmpfd.benchmark.report.summary import summarise
from anomalib_vmpfd.benchmark.results import Results
from anomalib_vmpfd.benchmark.suite import DatasetEntry, ModelEntry, Suite


def finished(folder, models, datasets, value):
    """A suite whose metrics are ``value(model, dataset, category, seed)``."""
    categories = ["a", "b"]
    suite = Suite("s", [ModelEntry(m, "x") for m in models], [DatasetEntry(d, "x", categories) for d in datasets])
    results = Results(folder / "s")
    for model in models:
        for dataset in datasets:
            for category in categories:
                for seed in (0, 1):
                    seen = value(model, dataset, category, seed)
                    metrics = {"image_AUROC": seen, "pixel_AP": seen if category == "a" else None}
                    results.record(RunResult(row(RunKey("s", model, dataset, category, seed), **metrics)))
    return summarise(suite, results), results


def lines(axes) -> dict[str, tuple[list[float], list[float]]]:
    return {
        container.get_label(): tuple(container.lines[0].get_data())
        for container in axes.containers
    }  # fmt: skip


def test_a_line_is_the_mean_of_the_categories_over_the_number_of_the_data_set(tmp_path):
    number = {"1 normals": 0.5, "4 normals": 0.6, "16 normals": 0.8}
    summary, results = finished(
        tmp_path, ["A"], list(number), lambda _, d, c, seed: number[d] + 0.1 * (c == "b") + 0.02 * seed
    )
    auroc, precision, _ = dataset_series(summary).axes
    assert auroc.get_xlabel() == "normals"
    x, y = lines(auroc)["A"]
    assert list(x) == [1, 4, 16]
    assert list(y) == pytest.approx([56, 66, 86])
    # b has no masks: it takes no part, and the curve is not lost
    assert list(lines(precision)["A"][1]) == pytest.approx([51, 61, 81])
    assert "data_series.svg" in draw(summary, results)


def test_a_model_that_comes_with_numbers_is_a_line_and_the_others_are_levels(tmp_path):
    value = {"P, 0 known": 0.1, "P, 10 known": 0.4, "Q": 0.2}
    summary, _ = finished(tmp_path, list(value), ["Parts"], lambda m, *_: value[m])
    first = model_series(summary).axes[0]
    x, y = lines(first)["P"]
    assert (list(x), list(y)) == ([0, 10], pytest.approx([10, 40]))
    assert [line.get_ydata()[0] for line in first.lines if line.get_label() == "Q"] == pytest.approx([20])


def test_names_without_a_common_unit_are_no_series(tmp_path):
    summary, results = finished(tmp_path, ["A", "B, 4 items"], ["1 normals", "4 defects"], lambda *_: 0.5)
    assert dataset_series(summary) is None
    assert model_series(summary) is None
    assert not any("series" in name for name in draw(summary, results))
