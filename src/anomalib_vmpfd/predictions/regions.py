# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Connected regions of a predicted mask, in pixels of the original image."""

from typing import NamedTuple

import numpy as np
from skimage.measure import label, regionprops


class Region(NamedTuple):
    """A connected part of a mask; x grows to the right, y downwards, and 0 is the border of the first pixel.

    Attributes:
        box (tuple[int, int, int, int]): Left, top, right and bottom edge in pixels of the original image.
        area (int): Area in pixels of the original image.
        peak (tuple[int, int]): Column and row of the pixel with the highest value of the anomaly map.
        peak_score (float): That value.
        centroid (tuple[float, float]): x and y of the centre of gravity.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: tuple[int, int]
    peak_score: float
    centroid: tuple[float, float]


def find_regions(mask: np.ndarray, anomaly_map: np.ndarray, size: tuple[int, int]) -> list[Region]:
    """Find the 8-connected regions of a mask.

    Args:
        mask (np.ndarray): Predicted mask ``(h, w)``, boolean.
        anomaly_map (np.ndarray): Anomaly map of the same shape.
        size (tuple[int, int]): Height and width of the original image, which may be larger or smaller.

    Returns:
        list[Region]: Regions, the highest peak first. They are no finer than the pixels of the map.
    """
    scale = np.array(size) / mask.shape
    regions = []
    for found in regionprops(label(mask, connectivity=2), intensity_image=anomaly_map):
        top, left = np.floor(scale * found.bbox[:2]).astype(int).tolist()
        bottom, right = np.ceil(scale * found.bbox[2:]).astype(int).tolist()
        inside = np.where(found.image, found.image_intensity, -np.inf)
        highest = np.array(np.unravel_index(inside.argmax(), inside.shape)) + found.bbox[:2]
        row, column = np.floor(scale * (highest + 0.5)).astype(int).tolist()
        y, x = (scale * (np.array(found.centroid) + 0.5)).round(1).tolist()
        area = max(1, round(float(found.area * scale.prod())))
        regions.append(Region((left, top, right, bottom), area, (column, row), float(f"{inside.max():.9g}"), (x, y)))
    return sorted(regions, key=lambda region: -region.peak_score)
