# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""How sure a difference in image AUROC is, given that test images are few.

Source: DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
characteristic curves", Biometrics 44(3), 1988. It takes the images for independent: where a set shows one part in
several pictures, the truth is less sure than that.
"""

import math

import numpy as np
import pandas as pd

from .config import RunKey
from .results import Results
from .summary import Summary


def placements(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Share of the images of the other kind that each image is on the right side of, ties by half.

    Its mean over the anomalous images, as that over the normal ones, is the AUROC.

    Args:
        labels (np.ndarray): 1 for anomalous images and 0 for normal ones, ``(N,)``.
        scores (np.ndarray): Their scores, ``(N,)``.

    Returns:
        np.ndarray: Shares of shape ``(N,)``, NaN where there is no image of the other kind.
    """
    images = pd.DataFrame({"label": labels, "score": scores})
    # how many of all images are below, less how many of its own kind
    below = images.score.rank() - images.groupby("label").score.rank()
    others = images.label.map(lambda label: (images.label != label).sum())
    share = below / others.where(others > 0)
    return share.where(images.label == 1, 1 - share).to_numpy()


def differences(
    summary: Summary, results: Results, first: str, second: str
) -> dict[tuple[str, str], tuple[float, float]]:
    """Image AUROC of the second model less that of the first in each category, at the seeds that both have.

    Args:
        summary (Summary): Results.
        results (Results): Where the scores of the runs are.
        first (str): Label of a model.
        second (str): Label of another one.

    Returns:
        dict[tuple[str, str], tuple[float, float]]: Difference and its standard error over test images by data set and
            category; categories without scores of both models are missing.
    """
    found = {}
    for dataset, category in summary.categories:
        ours, theirs = (_runs(summary, results, dataset, category, model) for model in (first, second))
        if seeds := ours.keys() & theirs.keys():
            found[dataset, category] = _difference([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])
    return found


def mean_difference(
    summary: Summary,
    by_category: dict[tuple[str, str], tuple[float, float]],
) -> tuple[float, float] | None:
    """Average differences over the categories, whose test images are independent.

    Args:
        summary (Summary): Results.
        by_category (dict[tuple[str, str], tuple[float, float]]): What :func:`differences` gave.

    Returns:
        tuple[float, float] | None: Mean difference and its standard error; ``None`` if a category is missing, for a
            mean over fewer would not compare.
    """
    if len(by_category) < len(summary.categories):
        return None
    values, errors = zip(*by_category.values(), strict=True)
    return float(np.mean(values)), math.hypot(*errors) / len(errors)


def _runs(summary: Summary, results: Results, dataset: str, category: str, model: str) -> dict[int, dict]:
    """Scores of a model by seed."""
    keys = (
        RunKey(summary.suite.suite, model, dataset, category, int(s)) for s in summary.seeds(dataset, category, model)
    )
    return {key.seed: run for key in keys if (run := results.predictions(key))}


def _difference(ours: list[dict], theirs: list[dict]) -> tuple[float, float]:
    gains = (_over_seeds(theirs) - _over_seeds(ours)).dropna()
    labels = gains.index.get_level_values("anomalous")
    parts = [gains[labels == kind] for kind in (0, 1)]
    return float(parts[1].mean()), math.hypot(*(part.sem() for part in parts))


def _over_seeds(runs: list[dict]) -> pd.Series:
    """Placements by label and name of the image, averaged over runs."""
    columns = []
    for run in runs:
        values = placements(np.array(run["labels"]), np.array(run["scores"]))
        index = pd.MultiIndex.from_arrays([run["labels"], run["images"]], names=["anomalous", "image"])
        # images of one name in several folders count as one
        columns.append(pd.Series(values, index).groupby(level=[0, 1]).mean())
    return pd.concat(columns, axis=1).mean(axis=1)
