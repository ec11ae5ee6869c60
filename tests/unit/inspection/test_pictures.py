# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of the inspection page: the same part of image, map and mask."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from anomalib_vmpfd.inspection.judge import Panel, View
from anomalib_vmpfd.inspection.pictures import SIDE, cropped, figures, outlined, region_boxes
from anomalib_vmpfd.predictions.regions import find_regions

HEIGHT, WIDTH = 120, 240


@pytest.fixture
def view() -> View:
    """A black image with a white square, twice as many pixels a side as its map."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    image[40:60, 100:120] = 1
    heat = np.full((HEIGHT // 2, WIDTH // 2), 0.3, np.float32)
    heat[20:30, 50:60] = 0.9
    return View(image, heat >= 0.5, Panel(heat, threshold=0.5))


def pictures(html: str) -> list[np.ndarray]:
    found = re.findall(r'<figure><img src="data:image/jpeg;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in found]


def test_input_map_and_outline_show_the_same_part(view):
    (region,) = find_regions(view.mask, view.panel.values, (HEIGHT, WIDTH))
    ((name, box),) = region_boxes([region._asdict()])
    assert name == "Region 1: peak 0.90 at 101, 41"
    for place, expected in ((None, (WIDTH // 2, HEIGHT // 2)), (box, (SIDE // 2, SIDE // 2))):
        html = figures(view, "Anomaly map", "a/part.png", place)
        image, heat, outline = pictures(html)
        assert max(image.shape) == SIDE
        assert image.shape == heat.shape == outline.shape
        bright = image.mean(-1) > 128
        # the map is bright where the square is, its outline around it
        assert heat[bright].mean() > 2 * heat[~bright].mean()
        rows, columns = np.nonzero(bright)
        if place is not None:
            assert rows.mean() == pytest.approx(expected[0], abs=8)
            assert columns.mean() == pytest.approx(expected[1], abs=8)
        changed = np.abs(outline.astype(int) - image).sum(-1) > 150
        assert changed.any()
        near = np.abs(np.nonzero(changed)[0] - rows.mean()).max()
        assert near < np.ptp(rows), "nothing is drawn far from the square"
    assert 'alt="part.png as it is"' in html
    assert html.count("alt=") == 4


def test_an_outline_leaves_the_image_as_it_is(view):
    before = view.image.copy()
    outlined(view.image, np.kron(view.mask, np.ones((2, 2), bool)))
    np.testing.assert_array_equal(view.image, before)


def test_a_region_at_the_border_is_cut_there():
    values = np.arange(100, dtype=np.float32).reshape(10, 10)
    assert cropped(values, (10, 10), None).shape == (SIDE, SIDE)
    corner = cropped(values, (100, 100), (0, 0, 10, 10))
    assert corner.shape == (SIDE, SIDE)
    assert corner[0, 0] == pytest.approx(0, abs=1)
    assert corner[-1, -1] < 40, "the box and a margin, not all"


def test_names_are_escaped(view):
    assert "<b>" not in figures(view, "<b>", '"><b>.png')
