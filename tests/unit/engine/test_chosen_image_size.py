# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""``image_size=None``: the shape of the training images decides, and a checkpoint keeps it."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder, ImageBatch, ImageItem
from anomalib.engine import Engine
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from anomalib_vmpfd import VmpfdAd

TINY = {
    "descriptor": "timm/resnet18",
    "descriptor_args": {"layers": ["layer2"]},
    "density_args": {"num_components": 16},
    "visualizer": False,
}
WIDE = (160, 416)  # 40 x 100 pixels in as many pixels as 256 x 256


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is built in no time has no weights in this package; new ones do."""
    monkeypatch.setattr(VmpfdAd, "load_pretrained", lambda *_: None)


def data(root: Path, size: tuple[int, int] = (40, 100)) -> Folder:
    """Twelve images of noise, ``size`` is height and width."""
    folder = root / f"{size[0]}x{size[1]}"
    if not folder.exists():
        (folder / "good").mkdir(parents=True)
        generator = np.random.default_rng(0)
        for index in range(12):
            pixels = generator.integers(0, 255, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "good" / f"{index:02}.png")
    none = {"val_split_mode": "none", "test_split_mode": "none"}
    return Folder("shapes", root=folder, normal_dir="good", train_batch_size=4, num_workers=0, **none)


def engine(folder: Path, **arguments) -> Engine:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "limit_val_batches": 0}
    return Engine(default_root_dir=folder, accelerator="cpu", **(quiet | arguments))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[VmpfdAd, Path, Path]:
    """A model of wide images, its data and its checkpoint."""
    root = tmp_path_factory.mktemp("wide")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VmpfdAd, "load_pretrained", lambda *_: None)
        model, runner = VmpfdAd(**TINY), engine(root)
        runner.fit(model, datamodule=data(root))
    return model, root, Path(runner.trainer.checkpoint_callback.best_model_path)


def scores(model: VmpfdAd, datamodule: Folder) -> torch.Tensor:
    datamodule.setup("fit")
    images = torch.stack([item.image for item in datamodule.train_data])
    with torch.inference_mode():
        return model.eval()(images).pred_score


def sizes(model: VmpfdAd) -> set[tuple[int, ...]]:
    """All places that know the size."""
    pixels = model.model.density.maps[0].to_pixels.cells
    assert pixels == model.image_size[0] * model.image_size[1]
    return {tuple(model.image_size), tuple(model.input_size), tuple(model.hparams["image_size"])}


def test_wide_images_give_a_wide_size(trained):
    model, root, checkpoint = trained
    assert sizes(model) == {WIDE}
    assert tuple(torch.load(checkpoint, weights_only=True)["hyper_parameters"]["image_size"]) == WIDE
    batch = next(iter(data(root).setup("fit") or model.trainer.datamodule.train_dataloader()))
    assert batch.image.shape[-2:] == WIDE, "images are resized once, to this size"


def test_a_model_without_arguments_becomes_it(trained, tmp_path):
    model, root, checkpoint = trained
    bare = VmpfdAd(visualizer=False)
    predicted = engine(tmp_path).predict(bare, data_path=root / "40x100" / "good", ckpt_path=checkpoint)
    assert sizes(bare) == {WIDE}
    seen = torch.cat([batch.pred_score for batch in predicted])
    torch.testing.assert_close(seen, scores(model, data(root)), rtol=1e-3, atol=1e-4)


def test_a_training_goes_on_with_it(trained, tmp_path):
    """Also where the images of now would have given another size."""
    _, root, checkpoint = trained
    before = torch.load(checkpoint, weights_only=True)["state_dict"]["model.density.prototypes.0.products"]
    for size in ((40, 100), (64, 64)):
        resumed = VmpfdAd(visualizer=False)
        runner = engine(tmp_path / str(size[0]), max_epochs=2)
        runner.fit(resumed, datamodule=data(root, size), ckpt_path=checkpoint)
        assert runner.trainer.current_epoch == 2
        assert sizes(resumed) == {WIDE}
        torch.testing.assert_close(resumed.model.density.prototypes[0].products, before, rtol=0, atol=0)


def test_a_size_that_contradicts_the_checkpoint_is_an_error(trained, tmp_path):
    _, root, checkpoint = trained
    with pytest.raises(ValueError, match=r"image_size=\[64, 64\] was given, .* with \[160, 416\]"):
        engine(tmp_path).predict(VmpfdAd(image_size=(64, 64)), data_path=root, ckpt_path=checkpoint)


def test_square_images_keep_the_size_without_a_word(tmp_path, caplog):
    model = VmpfdAd(**TINY)
    network = model.model
    with caplog.at_level(logging.INFO):
        engine(tmp_path).fit(model, datamodule=data(tmp_path, (48, 48)))
    assert sizes(model) == {(256, 256)}
    assert model.model is network, "nothing is built anew"
    assert "image_size was not given" not in caplog.text


@pytest.mark.parametrize("given", ["image_size", "pre_processor"])
def test_a_size_or_a_pre_processor_of_ones_own_wins(tmp_path, given):
    arguments = {"image_size": (64, 96)}
    if given == "pre_processor":
        arguments["pre_processor"] = VmpfdAd.configure_pre_processor((64, 96))
    model = VmpfdAd(**TINY, **arguments)
    engine(tmp_path).fit(model, datamodule=data(tmp_path))
    assert sizes(model) == {(64, 96)}
    # as it has no say in the model's size, one of its own needs a model of that size
    alone = VmpfdAd(**TINY, pre_processor=VmpfdAd.configure_pre_processor((64, 96)))
    with pytest.raises(ValueError, match=r"64x96 pixels, but the model was built for 256x256; give"):
        engine(tmp_path).fit(alone, datamodule=data(tmp_path))


def test_another_fit_on_images_of_another_shape_learns_anew(tmp_path):
    """Nothing of the first fit may be taken for learnt."""
    model = VmpfdAd(**TINY)
    engine(tmp_path / "wide").fit(model, datamodule=data(tmp_path))
    engine(tmp_path / "tall").fit(model, datamodule=data(tmp_path, (100, 40)))
    assert sizes(model) == {WIDE[::-1]}
    assert all(each.products.abs().amax(0).min() > 0 for each in model.model.density.prototypes)
    alone = VmpfdAd(**TINY)
    engine(tmp_path / "alone").fit(alone, datamodule=data(tmp_path, (100, 40)))
    torch.testing.assert_close(model.state_dict(), alone.state_dict(), rtol=0, atol=0)


class Noise(Dataset):
    """Images without files."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> ImageItem:
        image = torch.rand(3, 100, 40, generator=torch.Generator().manual_seed(index))
        return ImageItem(image=image, gt_label=torch.tensor(0))


def test_of_a_loader_of_ones_own_the_images_themselves_are_looked_at(tmp_path):
    model = VmpfdAd(**TINY)
    loader = DataLoader(Noise(), batch_size=4, collate_fn=ImageBatch.collate)
    engine(tmp_path).fit(model, train_dataloaders=loader)
    assert sizes(model) == {WIDE[::-1]}
