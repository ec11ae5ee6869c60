# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Data loaders and datamodules of one's own: images without a table and without files train and test every model."""

import pytest
import torch
from anomalib.data import ImageBatch, ImageItem
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

import tiny
from anomalib_vmpfd.engine.calibration import held_out_indices


class Images(Dataset):
    """Textures in memory; every other image may have a white square."""

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


class OwnData(LightningDataModule):
    name, category = "own", ""  # by which anomalib's engine names the folder of results

    def train_dataloader(self) -> DataLoader:
        return loader(Images(20), shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return loader(Images(4, 100, defects=True))

    def test_dataloader(self) -> DataLoader:
        return loader(Images(8, 200, defects=True))


def test_a_datamodule_of_ones_own_trains_and_tests(entry, tmp_path):
    model, runner, data = entry.build(), tiny.engine(tmp_path, limit_val_batches=1.0), OwnData()
    runner.fit(model, datamodule=data)
    held_out = len(held_out_indices(20, model.held_out, 0))
    assert len(model._normals.learnt) == 20 - held_out
    assert len(model._normals.calibration) == (held_out or 20)
    assert model.post_processor.image_threshold.isfinite()
    assert runner.test(model, datamodule=data, verbose=False)[0]["image_AUROC"] >= entry.image_auroc


def test_a_data_loader_of_ones_own_trains_and_tests(entry, tmp_path):
    model, runner = entry.build(), tiny.engine(tmp_path)
    runner.fit(model, train_dataloaders=loader(Images(20), shuffle=True))
    metrics = runner.test(model, dataloaders=loader(Images(8, 200, defects=True)), verbose=False)[0]
    assert metrics["image_AUROC"] >= entry.image_auroc


def test_twelve_images_train_one_by_one(entry, tmp_path):
    """A held-out image would be a batch of nothing to learn."""
    model, runner = entry.build(), tiny.engine(tmp_path, max_epochs=1)
    model.held_out = 0.1
    runner.fit(model, train_dataloaders=loader(Images(12), batch_size=1))
    assert len(model._normals.learnt) == 11
    assert runner.trainer.global_step == 11
    assert model.post_processor.image_threshold.isfinite()


def test_it_never_learns_or_calibrates_on_labelled_defects(entry, tmp_path):
    with pytest.raises(ValueError, match="labelled anomalous"):
        tiny.engine(tmp_path, max_epochs=1).fit(
            entry.build(), train_dataloaders=loader(Images(12, defects=True), batch_size=8)
        )


@pytest.mark.parametrize("scale", [255.0, -1.0])
def test_images_outside_0_and_1_end_a_training_and_a_test_in_one_sentence(entry, trained, scale, tmp_path):
    message = r"must lie in \[0, 1\], these go from"
    with pytest.raises(ValueError, match=message):
        tiny.engine(tmp_path).fit(entry.build(), train_dataloaders=loader(Images(12, scale=scale)))
    runner = tiny.engine(tmp_path)
    for use in (runner.test, runner.predict):
        with pytest.raises(ValueError, match=message):
            use(trained.model, dataloaders=loader(Images(4, scale=scale)))
    if hasattr(trained.model.model, "explain"):
        with pytest.raises(ValueError, match=message):
            trained.model.explain(scale * torch.rand(3, 64, 64))
