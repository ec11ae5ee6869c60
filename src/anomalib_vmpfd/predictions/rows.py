# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The row of one judged image, whatever judged it: a test, a prediction, an export."""

from typing import SupportsFloat

import numpy as np

from .regions import find_regions
from .row_files import Row

LABELS = {False: "normal", True: "anomalous", None: ""}


def prediction_row(
    path: str,
    score: SupportsFloat,
    label: bool | None,
    threshold: SupportsFloat | None,
    drift: SupportsFloat | None,
    size: tuple[int, int],
    mask: np.ndarray | None,
    anomaly_map: np.ndarray | None,
    model: str,
) -> Row:
    """Describe what was said of an image.

    Args:
        path (str): The image.
        score (SupportsFloat): Its score.
        label (bool | None): Whether it is anomalous, where that is known.
        threshold (SupportsFloat | None): Threshold of the score.
        drift (SupportsFloat | None): See ``ImageDrift``; without one the row has no such column.
        size (tuple[int, int]): Height and width of the image as stored.
        mask (np.ndarray | None): Predicted mask ``(h, w)``, boolean.
        anomaly_map (np.ndarray | None): Anomaly map of the same shape.
        model (str): Check sum of the model.

    Returns:
        Row: The columns in their order; numbers of float32 in as many digits as tell them from their neighbours.
    """
    regions = [] if mask is None or anomaly_map is None else find_regions(mask, anomaly_map, size)
    return {
        "path": path,
        "score": _number(score),
        "label": LABELS[label],
        "threshold": None if threshold is None else _number(threshold),
        **({} if drift is None else {"drift": _number(drift)}),
        "width": size[1],
        "height": size[0],
        "model": model,
        "regions": [region._asdict() for region in regions],
    }


def _number(value: SupportsFloat) -> float:
    return float(f"{float(value):.9g}")
