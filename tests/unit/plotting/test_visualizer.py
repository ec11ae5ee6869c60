# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The visualizer: a picture for every image, with the panels that its model offers."""

from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, ImageItem, PredictDataset
from anomalib.engine import Engine
from matplotlib.figure import Figure
from PIL import Image

from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.plotting import HeatmapVisualizer, Panel, heatmap_figure


def test_pictures_of_a_test_keep_the_names_of_their_images(tmp_path):
    names = ["good/000.jpg", "broken/ü 部品.png", "broken/" + "n" * 250 + ".png"]
    model = VmpfdAd(image_size=(64, 64), density_args={"num_components": 16}).eval()
    batch = ImageBatch(image=torch.rand(3, 3, 64, 64), image_path=[f"/data/parts/test/{name}" for name in names])
    batch.update(gt_mask=torch.zeros(3, 64, 64), gt_label=torch.tensor([0, 1, 1]))
    with torch.inference_mode():
        batch.update(**model.model(batch.image)._asdict())
    model.post_processor.calibrate([batch])
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
        HeatmapVisualizer(fields=["heat"]).visualize(item)


class Explained(torch.nn.Module):
    """A model whose ``explain`` returns panels of its own."""

    def explain(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        edges = images.mean(1, keepdim=True)
        return {"edges": 3 * edges, "structure": images.flip(1), "score": edges.amax((1, 2, 3))}


class Module(torch.nn.Module):
    """The part of a Lightning module that the visualizer uses."""

    panel_titles: ClassVar = {"edges": "Edges of parts"}

    def __init__(self) -> None:
        super().__init__()
        self.model = Explained()


def draw(visualizer: HeatmapVisualizer, module: torch.nn.Module, batch: ImageBatch, folder: Path) -> list[Panel]:
    """Panels of the pictures that a test saves."""
    panels = []

    def record(drawn: list[Panel], *args, **kwargs) -> Figure:
        panels.extend(drawn)
        return heatmap_figure(drawn, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anomalib_vmpfd.plotting.visualizer.heatmap_figure", record)
        visualizer.on_test_batch_end(SimpleNamespace(default_root_dir=folder), module, batch, batch, 0)
    return panels


def test_a_model_brings_panels_of_its_own(tmp_path):
    batch = ImageBatch(image=torch.rand(1, 3, 48, 48), anomaly_map=torch.rand(1, 48, 48))
    panels = draw(HeatmapVisualizer(), Module(), batch, tmp_path)
    shown = [(panel.title, panel.kind) for panel in panels]
    assert shown == [("Input", "image"), ("structure", "image"), ("Edges of parts", "map")]
    np.testing.assert_allclose(panels[2].values, 3 * batch.image[0].mean(0))
    (panel,) = draw(HeatmapVisualizer(fields=["structure"]), Module(), batch, tmp_path)
    assert panel.values.shape == (48, 48, 3)


def test_unknown_fields_are_refused_as_soon_as_the_panels_are_known(tmp_path):
    batch = ImageBatch(image=torch.rand(1, 3, 48, 48))
    visualizer = HeatmapVisualizer(fields=["heat", "edges"])
    with pytest.raises(ValueError, match=r"Unknown fields heat; choose among image, .*, anomaly_map, edges"):
        visualizer.setup(SimpleNamespace(), Module(), "fit")
    with pytest.raises(ValueError, match=r"Unknown fields heat; choose among image, .*, edges, structure"):
        draw(visualizer, Module(), batch, tmp_path)
    HeatmapVisualizer(fields=["edges"]).setup(SimpleNamespace(), Module(), "fit")


def test_images_of_one_name_in_two_folders_have_a_picture_each(tmp_path):
    """Through anomalib's engine, from files in ``a/x`` and ``b/x``."""
    shades = {"a/x/1.png": 0, "b/x/1.png": 255, "b/y/2.png": 128}
    for name, shade in shades.items():
        file = tmp_path / "parts" / name
        file.parent.mkdir(parents=True)
        Image.fromarray(np.full((64, 64, 3), shade, np.uint8)).save(file)
    model = VmpfdAd(
        image_size=(64, 64),
        density_args={"num_components": 16},
        visualizer=HeatmapVisualizer(fields=["image"], output_dir=tmp_path / "pictures"),
    )
    engine = Engine(accelerator="cpu", default_root_dir=tmp_path, logger=False)
    for _ in range(2):  # a second run replaces the pictures of the first
        engine.predict(model=model, dataset=PredictDataset(tmp_path / "parts"), return_predictions=False)
    found = {}
    for path in (tmp_path / "pictures").rglob("*.png"):
        with Image.open(path) as picture:
            found[path.relative_to(tmp_path / "pictures").as_posix()] = picture.getpixel(
                (picture.width // 2, picture.height // 2),
            )[0]
    assert found == shades
