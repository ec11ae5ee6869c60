# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What a model learns from: numbered images, and a fit that sees nothing else."""

from types import SimpleNamespace

import torch
from anomalib.data import ImageBatch, ImageItem
from torch import nn
from torch.utils.data import DataLoader, Dataset

from anomalib_vmpfd.engine.learnt_data import LearntImages, Restricted, train_on
from anomalib_vmpfd.engine.normal_images import NormalImages


class Plain(Dataset):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> ImageItem:
        return ImageItem(image=torch.full((3, 4, 4), index / 100), gt_label=torch.tensor(0))


class Double(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 2 * images


def learnt(**arguments) -> tuple[NormalImages, LearntImages]:
    normals = NormalImages(DataLoader(Plain(), batch_size=3, collate_fn=ImageBatch.collate), 0.2, seed=0)
    reading = {"image_size": None, "pre_processor": None, "device": torch.device("cpu"), "show": False} | arguments
    return normals, LearntImages(normals, torch.arange(len(normals.learnt)), **reading)


def values(images: LearntImages) -> list[tuple[int, int]]:
    """Number of each image and its index in the data set."""
    return [
        (int(number), round(100 * float(image.mean())))
        for batch, numbers in images
        for image, number in zip(batch.image, numbers, strict=True)
    ]


def test_numbers_count_the_learnt_images_in_order():
    normals, images = learnt()
    assert len(images) == 16
    for _ in range(2):
        assert values(images) == list(enumerate(normals.learnt))


def test_a_part_of_them_is_evenly_spaced_and_keeps_its_numbers():
    normals, images = learnt()
    few = images.evenly(4)
    assert values(few) == [(number, normals.learnt[number]) for number in (0, 5, 10, 15)]
    assert values(images.evenly(100)) == values(images)
    assert len(few.evenly(2)) == 2


def test_images_come_as_the_model_gets_them():
    normals, images = learnt(pre_processor=Double())
    assert [value for _, value in values(images)] == [2 * index for index in normals.learnt]


def test_a_fit_gets_the_restricted_loader_and_all_else_of_its_source():
    source = SimpleNamespace(instance="datamodule", dataloader=lambda: "whole")
    trainer = SimpleNamespace(fit_loop=SimpleNamespace(_data_source=source))
    train_on(trainer, lambda loader: f"part of the {loader}")
    assert trainer.fit_loop._data_source.dataloader() == "part of the whole"
    assert trainer.fit_loop._data_source.instance == "datamodule"


def test_a_trainer_that_runs_again_reads_the_data_of_the_second_run():
    """Lightning keeps the source and sets ``instance`` on it at each run."""
    inner = SimpleNamespace(instance="first", dataloader=lambda: f"loader of {inner.instance}")
    outer = Restricted(inner, lambda loader: f"restricted {loader}")
    outer.instance = "second"
    assert outer.dataloader() == "restricted loader of second"
    assert outer.instance == "second"
