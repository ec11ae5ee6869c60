# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""How sure a difference is, against resampled test images."""

import numpy as np
import pytest
from by_hand import Finished, predictions, row
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from anomalib_vmpfd.benchmark.records import RunKey, RunResult
from anomalib_vmpfd.benchmark.report.summary import summarise
from anomalib_vmpfd.benchmark.report.tables import difference_table
from anomalib_vmpfd.benchmark.report.uncertainty import (
    differences,
    false_positive_rate,
    mean_difference,
    placements,
)


def two_models(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and scores of two models that often err on the same images."""
    labels = np.repeat([0, 1], [50, 80])
    shared = labels + rng.normal(0, 0.8, len(labels))
    return labels, np.round(shared + rng.normal(0, 0.3, len(labels)), 1), shared + rng.normal(0, 0.8, len(labels))


def test_their_mean_is_the_auroc_with_ties():
    labels, scores, _ = two_models(np.random.default_rng(0))
    shares = placements(labels, scores)
    for kind in (0, 1):
        assert shares[labels == kind].mean() == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert np.isnan(placements(np.ones(3, int), np.arange(3.0))).all()


def test_the_error_is_that_of_resampled_test_images(finished: Finished):
    rng = np.random.default_rng(1)
    labels, ours, theirs = two_models(rng)
    files = [finished.data / ("crack" if label else "good") / f"{i}.png" for i, label in enumerate(labels)]
    for model, scores in (("A", ours), ("B", theirs)):
        key = RunKey("by_hand", model, "Secret", "mould", 0)
        # the order of the images may differ
        order = rng.permutation(len(files))
        run = predictions([files[i] for i in order], scores[order].tolist())
        finished.results.record(RunResult(row(key), run))
    summary = summarise(finished.suite, finished.results)
    found, error = differences(summary, finished.results)["B"]["Secret", "mould"]

    resampled = []
    for _ in range(2000):
        drawn = np.concatenate([rng.choice(np.flatnonzero(labels == kind), (labels == kind).sum()) for kind in (0, 1)])
        resampled.append(roc_auc_score(labels[drawn], theirs[drawn]) - roc_auc_score(labels[drawn], ours[drawn]))
    assert found == pytest.approx(roc_auc_score(labels, theirs) - roc_auc_score(labels, ours), abs=1e-12)
    assert error == pytest.approx(np.std(resampled), rel=0.08)


def test_models_compare_at_common_seeds_and_complete_categories(finished: Finished):
    for seed, scores in ((1, [0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9]), (2, [0.5] * 9)):
        run = finished.results.predictions(RunKey("by_hand", "B", "Parts", "nut", 0))
        key = RunKey("by_hand", "A", "Parts", "nut", seed)
        finished.results.record(RunResult(row(key), {**run, "scores": scores}))
    key = RunKey("by_hand", "B", "Parts", "nut", 1)
    finished.results.record(RunResult(row(key), run))
    summary = summarise(finished.suite, finished.results)
    by_category = differences(summary, finished.results)["B"]

    assert ("Parts", "bolt") not in by_category, "B failed there"
    # B orders all 18 pairs rightly; A orders 10 and ties one at seed 0, all at seed 1
    assert by_category["Parts", "nut"][0] == pytest.approx((1 - 10.5 / 18) / 2)
    assert mean_difference(summary, by_category) is None
    lines = difference_table(summary, finished.results).splitlines()
    assert lines[-1].startswith("| Mean of all ")
    assert lines[-1].endswith(" - |"), "a mean over fewer categories would not compare"

    summary.categories.remove(("Parts", "bolt"))
    errors = [by_category["Parts", "nut"][1], by_category["Secret", "mould"][1]]
    assert mean_difference(summary, by_category)[1] == pytest.approx(np.hypot(*errors) / 2)


def test_shared_names_and_sets_without_defects_break_no_report(finished: Finished):
    good, crack = finished.data / "good" / "0.png", finished.data / "crack" / "0.png"
    for model in ("A", "B"):
        for category, files in (("mould", [good, good, crack]), ("nut", [good, good])):
            key = RunKey("by_hand", model, "Secret" if category == "mould" else "Parts", category, 0)
            finished.results.record(RunResult(row(key), predictions(files, [0.1, 0.2, 0.3][: len(files)])))
    table = difference_table(summarise(finished.suite, finished.results), finished.results)
    last = {line.split(" | ")[0]: line.split(" | ")[-1] for line in table.splitlines()}
    assert last["| Secret / mould"] == "+0.0 |"
    assert last["| Parts / nut"] == "- |"


def test_the_false_positive_rate_counts_normals_alone_and_has_the_exact_interval(finished: Finished):
    key = RunKey("by_hand", "A", "Parts", "nut", 0)
    run = finished.results.predictions(key)
    normals = run["labels"].count(0)
    # every defect found, one normal judged anomalous
    decisions = [label or index == run["labels"].index(0) for index, label in enumerate(run["labels"])]
    finished.results.record(RunResult(row(key), {**run, "decisions": [bool(d) for d in decisions]}))
    summary = summarise(finished.suite, finished.results)
    expected = binomtest(1, normals).proportion_ci(method="exact")
    found = false_positive_rate(summary, finished.results, "Parts", "nut", "A")
    assert found == pytest.approx((1 / normals, expected.low, expected.high))
    assert false_positive_rate(summary, finished.results, "Parts", "nut", "absent") is None
