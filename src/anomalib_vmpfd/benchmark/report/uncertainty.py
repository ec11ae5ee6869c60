# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The uncertainty of differences in image AUROC and of false-positive rates, as the test images are few.

Source of the first: DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver
operating characteristic curves", Biometrics 44(3), 1988. It assumes independent images: where a set shows one part in
several pictures, the actual uncertainty is higher.
"""

import math

import numpy as np
import pandas as pd
from scipy.stats import beta

from anomalib_vmpfd.benchmark.records import RunKey
from anomalib_vmpfd.benchmark.results import Results

from .summary import Summary


def placements(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Share of the images of the other class that each image is ranked correctly against, ties counted by half.

    Its mean over the anomalous images, as well as over the normal ones, is the AUROC.

    Args:
        labels (np.ndarray): 1 for anomalous images and 0 for normal ones, ``(N,)``.
        scores (np.ndarray): Their scores, ``(N,)``.

    Returns:
        np.ndarray: Shares of shape ``(N,)``, NaN where there is no image of the other class.
    """
    images = pd.DataFrame({"label": labels, "score": scores})
    # number of images below, minus the number of its own class below
    below = images.score.rank() - images.groupby("label").score.rank()
    others = images.label.map(lambda label: (images.label != label).sum())
    share = below / others.where(others > 0)
    return share.where(images.label == 1, 1 - share).to_numpy()


def differences(summary: Summary, results: Results) -> dict[str, dict[tuple[str, str], tuple[float, float]]]:
    """Image AUROC of every model less that of the first in each category, at the seeds that both have.

    Args:
        summary (Summary): Results.
        results (Results): Folder with the scores of the runs.

    Returns:
        dict[str, dict[tuple[str, str], tuple[float, float]]]: Difference and its standard error over test images, by
            model and by data set and category; categories without scores of both models are missing.
    """
    first, *others = summary.models
    found: dict[str, dict[tuple[str, str], tuple[float, float]]] = {model: {} for model in others}
    for dataset, category in summary.categories:
        ours = _by_seed(summary, results, dataset, category, first)
        for model in others:
            theirs = _by_seed(summary, results, dataset, category, model)
            if seeds := ours.keys() & theirs.keys():
                gains = pd.concat([theirs[seed] - ours[seed] for seed in seeds], axis=1).mean(axis=1).dropna()
                found[model][dataset, category] = _with_error(gains)
    return found


def false_positive_rate(
    summary: Summary,
    results: Results,
    dataset: str,
    category: str,
    model: str,
) -> tuple[float, float, float] | None:
    """Share of normal test images above a model's own threshold, averaged over seeds, and its interval.

    Args:
        summary (Summary): Results.
        results (Results): Folder with the decisions of the runs.
        dataset (str): Data set.
        category (str): Category.
        model (str): Label.

    Returns:
        tuple[float, float, float] | None: The rate and both ends of its exact 95 % interval (Clopper-Pearson) over the
            images of one seed; ``None`` without decisions on normal images.
    """
    rates, count = [], 0
    for seed in summary.seeds(dataset, category, model):
        run = results.predictions(RunKey(summary.suite.suite, model, dataset, category, int(seed)))
        decisions = [d for d, label in zip(run["decisions"], run["labels"], strict=True) if not label] if run else []
        if decisions:
            rates.append(float(np.mean(decisions)))
            count = len(decisions)
    if not rates:
        return None
    rate = float(np.mean(rates))
    above = rate * count
    lowest = float(beta.ppf(0.025, above, count - above + 1)) if above else 0.0
    highest = float(beta.ppf(0.975, above + 1, count - above)) if above < count else 1.0
    return rate, lowest, highest


def mean_difference(
    summary: Summary,
    by_category: dict[tuple[str, str], tuple[float, float]],
) -> tuple[float, float] | None:
    """Average differences over the categories, whose test images are independent.

    Args:
        summary (Summary): Results.
        by_category (dict[tuple[str, str], tuple[float, float]]): Result of :func:`differences` for one model.

    Returns:
        tuple[float, float] | None: Mean difference and its standard error; ``None`` if a category is missing, as
            means over different categories are not comparable.
    """
    if len(by_category) < len(summary.categories):
        return None
    values, errors = zip(*by_category.values(), strict=True)
    return float(np.mean(values)), math.hypot(*errors) / len(errors)


def _by_seed(summary: Summary, results: Results, dataset: str, category: str, model: str) -> dict[int, pd.Series]:
    """Placements of a model's runs by seed, each by label and name of the image."""
    found = {}
    for seed in summary.seeds(dataset, category, model):
        run = results.predictions(RunKey(summary.suite.suite, model, dataset, category, int(seed)))
        if run:
            values = placements(np.array(run["labels"]), np.array(run["scores"]))
            index = pd.MultiIndex.from_arrays([run["labels"], run["images"]], names=["anomalous", "image"])
            # images with the same name in several folders count as one
            found[seed] = pd.Series(values, index).groupby(level=[0, 1]).mean()
    return found


def _with_error(gains: pd.Series) -> tuple[float, float]:
    """Difference in AUROC and its standard error, from the differences of placements of both classes."""
    labels = gains.index.get_level_values("anomalous")
    parts = [gains[labels == kind] for kind in (0, 1)]
    return float(parts[1].mean()), math.hypot(*(part.sem() for part in parts))
