# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Data loaders and datamodules of one's own: images without a table and without files train and test."""

from pathlib import Path

import pytest
import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.engine import Engine
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from anomalib_vmpfd import VmpfdAd

SMALL = {
    "image_size": (64, 64),
    "encoder_args": {"dim": 16, "depth": 1},
    "reconstruction": "descriptors",
    "density_args": {"num_components": 32},
    "epochs": 1,
    "visualizer": False,
}


class Images(Dataset):
    """Textures in memory; every other test image has a white square."""

    def __init__(self, count: int, first: int = 0, defects: bool = False, scale: float = 1.0) -> None:
        self.count, self.first, self.defects, self.scale = count, first, defects, scale

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> ImageItem:
        generator = torch.Generator().manual_seed(self.first + index)
        image = 0.5 + 0.05 * torch.randn(3, 64, 64, generator=generator).clamp(-3, 3)
        mask = torch.zeros(64, 64)
        if self.defects and index % 2:
            image[:, 20:36, 30:46] = 1.0
            mask[20:36, 30:46] = 1
        return ImageItem(image=self.scale * image, gt_label=mask.any().long(), gt_mask=mask)


def loader(dataset: Dataset, batch_size: int = 4, **arguments) -> DataLoader:
    return DataLoader(dataset, batch_size=batch_size, collate_fn=ImageBatch.collate, **arguments)


def engine(folder: Path, **arguments) -> Engine:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    return Engine(default_root_dir=folder, **(quiet | arguments))


class OwnData(LightningDataModule):
    name, category = "own", ""  # by which anomalib's engine names the folder of results

    def train_dataloader(self) -> DataLoader:
        return loader(Images(20), shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return loader(Images(4, 100, defects=True))

    def test_dataloader(self) -> DataLoader:
        return loader(Images(8, 200, defects=True))


def test_a_datamodule_of_ones_own_trains_and_tests(tmp_path):
    model, runner, data = VmpfdAd(**SMALL), engine(tmp_path), OwnData()
    runner.fit(model, datamodule=data)
    assert len(model._normals.learnt) == 18
    assert len(model._normals.calibration) == 2
    assert model.post_processor.image_threshold.isfinite()
    assert runner.test(model, datamodule=data, verbose=False)[0]["image_AUROC"] > 0.9


def test_a_data_loader_of_ones_own_trains_and_tests(tmp_path):
    model, runner = VmpfdAd(**SMALL), engine(tmp_path)
    runner.fit(model, train_dataloaders=loader(Images(20)))
    metrics = runner.test(model, dataloaders=loader(Images(8, 200, defects=True)), verbose=False)[0]
    assert metrics["image_AUROC"] > 0.9


@pytest.mark.parametrize("reconstruction", [None, "descriptors"])
def test_twelve_images_train_one_by_one(reconstruction, tmp_path):
    """A held-out image would be a batch of nothing to learn."""
    arguments = SMALL if reconstruction else {**SMALL, "encoder_args": None}
    model, runner = VmpfdAd(**{**arguments, "reconstruction": reconstruction, "held_out": 0.1}), engine(tmp_path)
    runner.fit(model, train_dataloaders=loader(Images(12), batch_size=1))
    assert len(model._normals.learnt) == 11
    assert runner.trainer.global_step == 11
    assert model.post_processor.image_threshold.isfinite()


@pytest.mark.parametrize("scale", [255.0, -1.0])
def test_images_outside_0_and_1_end_a_training_and_a_test_in_one_sentence(scale, tmp_path):
    model, runner = VmpfdAd(**SMALL), engine(tmp_path)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], these go from"):
        runner.fit(model, train_dataloaders=loader(Images(12, scale=scale)))
    model, runner = VmpfdAd(**SMALL), engine(tmp_path / "other")
    runner.fit(model, train_dataloaders=loader(Images(12)))
    for use in (runner.test, runner.predict):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\], these go from"):
            use(model, dataloaders=loader(Images(4, scale=scale)))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        model(scale * torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        model.explain(scale * torch.rand(3, 64, 64))
