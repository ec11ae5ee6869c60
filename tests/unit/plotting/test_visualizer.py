# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Pictures: nothing is clipped, equal values have equal colours, and the outline is that of the threshold."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, ImageItem
from matplotlib.colors import Normalize
from matplotlib.text import Text
from PIL import Image

from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.anomaly.scale import bounded
from anomalib_vmpfd.engine.post_processor import RankPreservingPostProcessor
from anomalib_vmpfd.plotting import HeatmapVisualizer, Panel, heatmap_figure, to_picture
from anomalib_vmpfd.plotting.figures import principal_colors
from anomalib_vmpfd.plotting.threshold import pixel_threshold

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


def test_the_threshold_at_the_colour_bar_is_the_one_of_the_masks():
    """On the scale of TAM, through the model's bounds and the post-processor's normalisation."""
    generator = torch.Generator().manual_seed(0)
    post_processor = RankPreservingPostProcessor(image_fpr=0.1, pixel_fpr=0.02)
    normals = torch.randn(8, 40, 40, generator=generator)
    post_processor.calibrate(bounded(normals.amax((1, 2))), bounded(normals))
    tam = 3 * torch.randn(4, 40, 40, generator=generator)
    for sensitivity in (0.5, 0.6):
        post_processor.pixel_sensitivity = sensitivity
        batch = ImageBatch(image=torch.rand(4, 3, 40, 40), anomaly_map=bounded(tam), pred_score=torch.rand(4))
        post_processor.post_process_batch(batch)
        threshold = pixel_threshold(post_processor, calibrated=True)
        clear = (tam - threshold).abs() > 1e-4
        torch.testing.assert_close(batch.pred_mask.bool()[clear], (tam >= threshold)[clear])


def test_pictures_of_a_test_keep_the_names_of_their_images(tmp_path):
    names = ["good/000.jpg", "broken/ü 部品.png", "broken/" + "n" * 250 + ".png"]
    model = VmpfdAd(
        image_size=(64, 64), encoder_args={"depth": 1, "dim": 16}, density_args={"num_components": 16}
    ).eval()
    batch = ImageBatch(image=torch.rand(3, 3, 64, 64), image_path=[f"/data/parts/test/{name}" for name in names])
    batch.update(gt_mask=torch.zeros(3, 64, 64), gt_label=torch.tensor([0, 1, 1]))
    with torch.inference_mode():
        batch.update(**model.model(batch.image)._asdict())
    model.post_processor.calibrate(batch.pred_score, batch.anomaly_map)
    model.post_processor.post_process_batch(batch)
    trainer = SimpleNamespace(default_root_dir=tmp_path, datamodule=SimpleNamespace(name="parts", category="test"))
    HeatmapVisualizer().on_test_batch_end(trainer, model, batch, batch, 0)
    assert {str(p.relative_to(tmp_path / "images")) for p in tmp_path.rglob("*.*")} == set(names)
    sizes = {Image.open(path).size for path in (tmp_path / "images").rglob("*.*")}
    assert len(sizes) == 1


def test_draws_what_there_is_of_any_models_predictions():
    visualizer = HeatmapVisualizer(fields=["image", "anomaly_map", "pred_mask"])
    item = ImageItem(image=torch.rand(3, 48, 48), anomaly_map=torch.rand(48, 48))
    bare = visualizer.visualize(item)
    item.pred_mask = item.anomaly_map > 0.5
    assert visualizer.visualize(item).width > bare.width
    assert HeatmapVisualizer(fields=["tam"]).visualize(item) is None
    with pytest.raises(ValueError, match="Unknown fields heat; choose among image"):
        HeatmapVisualizer(fields=["heat"])


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


def test_principal_colors_tell_groups_of_features_apart():
    """Two kinds of cells in twenty dimensions, under noise."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.rand(2, 8, 8, generator=generator) > 0.5
    directions = torch.randn(2, 20, generator=generator)
    features = directions[kind.long()].movedim(-1, 1) + 0.01 * torch.randn(2, 20, 8, 8, generator=generator)
    red = principal_colors(features)[..., 0]
    assert abs(red[kind].mean() - red[~kind].mean()) > 0.9
    assert red[kind].std() < 0.05


def test_the_colour_bar_is_labelled_at_its_ends_on_any_scale():
    figure = heatmap_figure([Panel("Map", np.full((64, 64), 3.0), "map")], scale=Normalize(2, 5), panel_size=128)
    (axes,) = figure.axes
    labels = {text.get_text(): text.get_position()[1] for text in axes.texts}
    _, _, bottom, top = axes.images[-1].get_extent()
    assert (labels["2"], labels["3.5"], labels["5"]) == (bottom, (bottom + top) / 2, top)
