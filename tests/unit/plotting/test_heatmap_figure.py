# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Figures of panels: nothing is clipped, equal values have equal colours, contours follow their masks."""

import numpy as np
import pytest
from matplotlib.colors import Normalize
from matplotlib.text import Text

from anomalib_vmpfd.plotting import Panel, heatmap_figure, to_picture

NAMES = [
    "washer/test/scratch/000.png",
    "part/" + "very_long_name_" * 16 + ".png",
    "деталь/Prüfstück_№7_$x_1$_{braces}.png",
    "部品/" + "傷のある部品" * 20 + ".png",
    "",
]


@pytest.mark.parametrize("name", NAMES, ids=["plain", "long", "unicode", "without_glyphs", "none"])
@pytest.mark.parametrize("shape", [(64, 64), (256, 64), (32, 256)], ids=["square", "tall", "wide"])
def test_no_text_leaves_the_picture(name, shape):
    values = np.linspace(-3, 30, shape[0] * shape[1]).reshape(shape)
    panels = [Panel("Input", np.zeros((*shape, 3))), Panel("A title that is much too long", values, "map")]
    for threshold in (-1.0, 0.1, 1.05, 19.0, 99.0, float("nan")):
        figure = heatmap_figure(panels, name, "score 0.5 (threshold 0.5), judged anomalous", threshold=threshold)
        picture = figure.bbox
        for text in figure.findobj(Text):
            box = text.get_window_extent()
            if text.get_text():
                assert box.x0 >= picture.x0, text
                assert box.x1 <= picture.x1, text
                assert box.y0 >= picture.y0, text
                assert box.y1 <= picture.y1, text


def panel_colors(values: np.ndarray, **arguments) -> np.ndarray:
    """Colour in the middle of the only panel for each constant map."""
    found = []
    for value in values:
        picture = to_picture(heatmap_figure([Panel("", np.full((64, 64), value), "map")], **arguments))
        found.append(picture.getpixel((picture.width // 2 - 60, picture.height // 2 + 30)))
    return np.array(found)


def test_a_value_has_its_colour_in_every_picture_and_more_is_brighter():
    values = np.array([-5.0, 0.0, 0.3, 1.0, 3.0, 10.0, 20.0, 500.0])
    seen = panel_colors(values)
    np.testing.assert_array_equal(seen, panel_colors(values, title="another", threshold=2.0))
    luminance = seen @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance)[1:-1] > 3).all()
    np.testing.assert_array_equal(seen[0], seen[1])  # all below q_start is normal alike
    np.testing.assert_array_equal(seen[-2], seen[-1])


def test_an_outline_surrounds_its_mask_and_nothing_else():
    mask = np.zeros((64, 64))
    mask[20:30, 40:50] = 1
    plain, marked = (
        np.asarray(to_picture(heatmap_figure([Panel("", np.full((64, 64, 3), 0.5), contour=c)], scale=Normalize(0, 1))))
        for c in (None, mask)
    )
    y, x = np.nonzero((plain != marked).any(-1))
    left, top = (marked.shape[1] - 256) // 2, 28  # one panel of 256 pixels, in the middle below its own line
    np.testing.assert_allclose([x.min() - left, x.max() - left], [160, 200], atol=5)
    np.testing.assert_allclose([y.min() - top, y.max() - top], [80, 120], atol=5)


def test_the_colour_bar_is_labelled_at_its_ends_on_any_scale():
    figure = heatmap_figure([Panel("Map", np.full((64, 64), 3.0), "map")], scale=Normalize(2, 5), panel_size=128)
    (axes,) = figure.axes
    labels = {text.get_text(): text.get_position()[1] for text in axes.texts}
    _, _, bottom, top = axes.images[-1].get_extent()
    assert (labels["2"], labels["3.5"], labels["5"]) == (bottom, (bottom + top) / 2, top)
