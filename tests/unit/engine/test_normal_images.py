# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Normal images of any data loader: by their index, held out or learnt, never both."""

import logging
from collections.abc import Iterator

import pandas as pd
import pytest
import torch
from anomalib.data import ImageBatch, ImageItem
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, WeightedRandomSampler

from anomalib_vmpfd.engine.normal_images import NormalImages


class Plain(Dataset):
    """Images of one's own: no table, no files; what image it is stands in its pixels."""

    def __init__(self, count: int, anomalous: tuple[int, ...] = ()) -> None:
        self.count, self.anomalous = count, anomalous

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> ImageItem:
        return ImageItem(image=torch.full((3, 4, 4), index / 1000), gt_label=torch.tensor(int(index in self.anomalous)))


class Tabled(Plain):
    """Images with anomalib's table."""

    @property
    def samples(self) -> pd.DataFrame:
        labels = [int(index in self.anomalous) for index in range(self.count)]
        return pd.DataFrame({"image_path": [f"{i}.png" for i in range(self.count)], "label_index": labels})


def loader(dataset: Dataset, **arguments) -> DataLoader:
    return DataLoader(dataset, collate_fn=ImageBatch.collate, **({"batch_size": 4} | arguments))


def numbers(batches) -> list[int]:
    return [round(1000 * value) for batch in batches for value in batch.image[:, 0, 0, 0].tolist()]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_learnt_and_held_out_images_are_all_images_and_disjoint(shuffle, batch_size):
    images = NormalImages(loader(Plain(30), batch_size=batch_size, shuffle=shuffle), 0.2, seed=1)
    assert images.holds_out
    assert len(images.calibration) == 6
    assert sorted(images.learnt + images.calibration) == list(range(30))
    training = images.training_loader()
    for _ in range(2):
        assert sorted(numbers(training)) == images.learnt
    assert numbers(images.read(images.calibration, None)) == images.calibration
    assert training.batch_size == batch_size
    assert images.paths == []


def test_the_choice_depends_on_the_seed_alone():
    chosen = [NormalImages(loader(Plain(30), shuffle=s), 0.2, seed).calibration for s, seed in ((0, 1), (1, 1), (1, 2))]
    assert chosen[0] == chosen[1] != chosen[2]


def test_few_images_are_all_learnt_and_calibrated_on(caplog):
    with caplog.at_level(logging.WARNING):
        images = NormalImages(loader(Plain(9)), 0.1, seed=0)
    assert "Give at least 10 normal images" in caplog.text
    assert not images.holds_out
    assert images.learnt == images.calibration == list(range(9))
    assert images.training_loader() is images._loader


class OwnBatches:
    """A batch sampler of one's own: images in the order that it likes, some of them twice."""

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([i, i + 1, i] for i in range(0, 30, 2))

    def __len__(self) -> int:
        return 15


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_sampler": OwnBatches(), "batch_size": 1},
        {
            "batch_sampler": BatchSampler(RandomSampler(range(30), replacement=True), 4, drop_last=False),
            "batch_size": 1,
        },
        {"sampler": WeightedRandomSampler(torch.ones(30), 60)},
        {"sampler": RandomSampler(range(30), num_samples=10)},
    ],
    ids=["batch_sampler", "with replacement", "sampler", "fewer samples"],
)
def test_a_sampler_of_ones_own_never_gives_a_held_out_image(arguments):
    torch.manual_seed(0)
    images = NormalImages(loader(Plain(30), **arguments), 0.2, seed=1)
    seen = numbers(images.training_loader())
    assert seen
    assert not set(seen) & set(images.calibration)


def test_the_batches_of_a_plain_batch_sampler_stay_its_own():
    """DataLoader forgets batch size and sampler of such a one."""
    own = BatchSampler(RandomSampler(range(30)), 5, drop_last=False)
    images = NormalImages(loader(Plain(30), batch_sampler=own, batch_size=1), 0.2, seed=1)
    batches = list(images.training_loader())
    assert sorted(numbers(batches)) == images.learnt
    assert numbers(batches) != images.learnt
    assert len(batches) <= 6


def test_a_batch_sampler_keeps_its_order_and_repeats():
    images = NormalImages(loader(Plain(30), batch_sampler=OwnBatches(), batch_size=1), 0.2, seed=1)
    expected = [[i for i in batch if i in images.learnt] for batch in OwnBatches()]
    assert [numbers([batch]) for batch in images.training_loader()] == [batch for batch in expected if batch]


def test_a_batch_of_held_out_images_alone_is_left_out():
    """One image a batch: each held-out image is such a batch."""
    images = NormalImages(loader(Plain(12), batch_size=1), 0.2, seed=0)
    batches = list(images.training_loader())
    assert len(batches) == len(images.learnt) == 10
    own = NormalImages(loader(Plain(12), batch_sampler=[[i] for i in range(12)], batch_size=1), 0.2, seed=0)
    assert numbers(own.training_loader()) == own.learnt


def test_a_last_batch_that_is_dropped_does_not_drop_all():
    images = NormalImages(loader(Plain(12), batch_size=12, drop_last=True), 0.2, seed=0)
    assert sorted(numbers(images.training_loader())) == images.learnt
    images = NormalImages(loader(Plain(30), batch_size=4, drop_last=True), 0.1, seed=0)
    assert len(numbers(images.training_loader())) == 24  # of 27


def test_images_that_the_table_labels_anomalous_take_no_part(caplog):
    with caplog.at_level(logging.WARNING):
        images = NormalImages(loader(Tabled(30, anomalous=(3, 17))), 0.2, seed=1)
    assert "2 training images are labelled anomalous and take no part" in caplog.text
    assert not {3, 17} & {*images.learnt, *images.calibration, *numbers(images.training_loader())}
    assert len(images.learnt) + len(images.calibration) == 28
    assert images.paths[3] == "3.png"


def test_a_model_that_learns_defects_finds_them_apart(caplog):
    with caplog.at_level(logging.WARNING):
        images = NormalImages(loader(Tabled(30, anomalous=(3, 17))), 0.2, seed=1, learns_defects=True)
    assert not caplog.records
    assert images.defects == [3, 17]
    assert not {3, 17} & {*images.learnt, *images.calibration, *numbers(images.training_loader())}
    assert numbers(images.read(images.defects, None)) == [3, 17]
    with pytest.raises(ValueError, match="labelled anomalous"):
        list(images.read([2, 3], None))


def test_images_that_only_a_batch_labels_anomalous_are_refused_when_they_are_read():
    images = NormalImages(loader(Plain(12, anomalous=(5,))), 0.0, seed=0)
    with pytest.raises(ValueError, match=r"labelled anomalous \(position 1 of a batch\).*take it out of the training"):
        list(images.read(images.learnt, None))


@pytest.mark.parametrize("dataset", [Plain(0), Tabled(3, anomalous=(0, 1, 2))], ids=["empty", "all anomalous"])
def test_no_normal_image_is_said(dataset):
    # torch's random sampler refuses an empty data set by itself
    with pytest.raises(ValueError, match="no normal image among the training data"):
        NormalImages(loader(dataset), 0.1, seed=0)


def test_data_without_a_length_are_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            yield from ()

    for data in (DataLoader(Stream()), [DataLoader(Plain(3))]):
        with pytest.raises(ValueError, match=r"one DataLoader over a data set with a length.*got (Stream|list)"):
            NormalImages(data, 0.1, seed=0)


def test_images_are_read_without_augmentation_in_the_order_asked_for():
    class Augmented(Plain):
        augmentations = staticmethod(lambda image: image + 0.5)

        def __getitem__(self, index: int) -> ImageItem:
            item = super().__getitem__(index)
            item.image = self.augmentations(item.image) if self.augmentations else item.image
            return item

    dataset = Augmented(12)
    images = NormalImages(loader(dataset, batch_size=5), 0.0, seed=0)
    assert numbers(images.read([7, 2, 9], None)) == [7, 2, 9]
    assert next(iter(images.read([7, 2, 9], (6, 2)))).image.shape == (3, 3, 6, 2)
    assert dataset.augmentations is Augmented.augmentations, "the training keeps them"
