# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Regions of a mask, in pixels of the original image."""

import cv2
import numpy as np
import pytest

from anomalib_vmpfd.predictions.regions import find_regions


def test_a_region_is_told_in_pixels_of_the_original_image():
    mask, anomaly_map = np.zeros((64, 32), bool), np.full((64, 32), 0.1, np.float32)
    mask[10:14, 20:23] = True
    anomaly_map[10:14, 20:23] = 0.7
    anomaly_map[12, 21] = 0.875
    anomaly_map[0, 0] = 0.99  # not in the mask
    (region,) = find_regions(mask, anomaly_map, (640, 160))  # 10 rows and 5 columns a pixel
    assert region.box == (100, 100, 115, 140)
    assert region.area == 12 * 50
    assert region.peak == (107, 125)
    assert region.peak_score == 0.875
    assert region.centroid == (107.5, 120.0)


@pytest.mark.parametrize("size", [(64, 64), (100, 90), (33, 250), (20, 20)])
def test_regions_are_those_of_the_mask_at_the_original_size(size):
    """OpenCV on the enlarged mask as oracle; a box may be larger by a part of a pixel of the map."""
    generator = np.random.default_rng(0)
    mask = np.zeros((64, 64), bool)
    for top, left in ((3, 4), (30, 40), (50, 10)):
        mask[top : top + 9, left : left + 6] = generator.random((9, 6)) > 0.2
    anomaly_map = generator.random((64, 64)).astype(np.float32)
    large = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    found = find_regions(mask, anomaly_map, size)
    if min(size) >= 64:
        count, _, stats, centroids = cv2.connectedComponentsWithStats(large, connectivity=8)
        assert len(found) == count - 1
        for region in found:
            left, top, right, bottom = region.box
            near = np.abs(stats[1:, :2] - [left, top]).sum(1).argmin() + 1
            expected = stats[near]
            np.testing.assert_allclose([left, top, right - left, bottom - top], expected[:4], atol=2)
            np.testing.assert_allclose(region.centroid, centroids[near] + 0.5, atol=max(size) / 64)
            assert region.area == pytest.approx(expected[4], rel=0.15)
    for region in found:
        left, top, right, bottom = region.box
        assert 0 <= left <= region.peak[0] < right <= size[1]
        assert 0 <= top <= region.peak[1] < bottom <= size[0]
        assert region.area >= 1


def test_the_highest_peak_comes_first_and_corners_touch():
    mask = np.zeros((8, 8), bool)
    mask[0, 0] = mask[1, 1] = mask[6, 6] = True
    anomaly_map = np.zeros((8, 8), np.float32)
    anomaly_map[6, 6], anomaly_map[1, 1] = 0.9, 0.6
    first, second = find_regions(mask, anomaly_map, (8, 8))
    assert (first.box, second.box) == ((6, 6, 7, 7), (0, 0, 2, 2))
    assert not find_regions(np.zeros((8, 8), bool), anomaly_map, (8, 8))
