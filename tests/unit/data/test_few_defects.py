# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A few defects are learnt and no longer tested, the same ones for a seed; normals alone set thresholds."""

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from anomalib_vmpfd import FewDefects, Prn
from anomalib_vmpfd.models.prn import lightning_model

DEFECTS = 14


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tiny.with_defects(tmp_path_factory.mktemp("few"), 1)
    for index in range(DEFECTS):
        picture, mask = tiny.texture(200 + index), np.zeros((tiny.SIDE, tiny.SIDE), np.uint8)
        place = slice(5 + 2 * index, 17 + 2 * index), slice(40 - 2 * index, 52 - 2 * index)
        picture[place] = mask[place] = 255
        tiny.save(folder / "bad" / f"{index:03}.png", picture)
        tiny.save(folder / "mask" / f"{index:03}.png", mask)
        tiny.save(folder / "good_test" / f"{index:03}.png", tiny.texture(100 + index))
    return folder


def datamodule(root: Path, **arguments) -> FewDefects:
    folders = {"normal_dir": "good", "normal_test_dir": "good_test", "abnormal_dir": "bad", "mask_dir": "mask"}
    sizes = {"train_batch_size": 4, "eval_batch_size": 4, "num_workers": 0, "val_split_mode": "none"}
    return FewDefects(**({"name": "few", "root": root} | folders | sizes | arguments))


def split(data: FewDefects) -> dict[str, set[str]]:
    """File names of each part of the data, defects in training apart."""
    data.setup()
    train, test = data.train_data.samples, data.test_data.samples
    parts = {"known": train[train.label_index == 1], "normal": train[train.label_index == 0]}
    parts |= {"tested": test[test.label_index == 1], "good": test[test.label_index == 0]}
    if hasattr(data, "val_data"):
        parts["validated"] = data.val_data.samples
    return {name: {"/".join(Path(path).parts[-2:]) for path in rows.image_path} for name, rows in parts.items()}


@pytest.mark.parametrize("k", [0, 1, 5, 10])
def test_k_defects_are_learnt_and_not_tested(root, k):
    seen = split(datamodule(root, known_defects=k))
    assert len(seen["known"]) == k
    assert len(seen["tested"]) == DEFECTS - k
    assert not seen["known"] & seen["tested"]
    assert all(name.startswith("bad/") for name in seen["known"])
    assert (len(seen["normal"]), len(seen["good"])) == (12, DEFECTS)


def test_the_test_images_are_the_same_for_every_number_of_known_defects(root):
    seen = [split(datamodule(root, known_defects=k, removed_defects=10)) for k in (0, 1, 5, 10)]
    assert all(each["tested"] == seen[0]["tested"] for each in seen)
    assert len(seen[0]["tested"]) == DEFECTS - 10
    for fewer, more in pairwise(seen):
        assert fewer["known"] < more["known"]
        assert not more["known"] & more["tested"]


def test_a_seed_draws_the_same_again_and_another_one_others(root):
    draws = [split(datamodule(root, known_defects=5, seed=seed))["known"] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_a_mask_belongs_to_its_defect(root):
    data = datamodule(root, known_defects=3)
    data.setup()
    known = data.train_data.samples.query("label_index == 1")
    assert [Path(row.image_path).name for row in known.itertuples()] == [
        Path(row.mask_path).name for row in known.itertuples()
    ]
    item = data.train_data[int(known.index[0])]
    assert item.gt_label == 1
    # planted squares are brighter than anything else
    assert torch.equal(item.image.amin(0) > 0.9, item.gt_mask.bool().squeeze())


@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
def test_a_star_stands_for_every_kind_of_defect(root, tmp_path, monkeypatch, relative):
    """The layout of MVTec AD: kinds of defects beside the good test images, masks in folders of the same names."""
    folder = tmp_path / "data"
    shutil.copytree(root / "good", folder / "train" / "good")
    shutil.copytree(root / "good_test", folder / "test" / "good")
    for kind in ("dent", "scratch"):
        shutil.copytree(root / "bad", folder / "test" / kind)
        shutil.copytree(root / "mask", folder / "ground_truth" / kind)
        shutil.copy(folder / "test" / "good" / "000.png", folder / "test" / kind / "000.png")  # no copies of defects
    layout = {"normal_dir": "train/good", "normal_test_dir": "test/good"}
    if relative:
        monkeypatch.chdir(tmp_path)
        folder = Path("data")
    data = datamodule(folder, **layout, abnormal_dir="test/*", mask_dir="ground_truth/*", known_defects=0)
    assert {name.split("/")[0] for name in split(data)["tested"]} == {"dent", "scratch"}
    with pytest.raises(ValueError, match=r"no folder .*nowhere/\*"):
        datamodule(folder, **layout, abnormal_dir="nowhere/*", mask_dir="ground_truth/*").setup()


def test_validation_images_are_normals_of_the_training_set(root):
    seen = split(datamodule(root, known_defects=5, val_split_mode="from_train", val_split_ratio=0.25))
    assert len(seen["validated"]) == 3
    assert all(name.startswith("good/") for name in seen["validated"])
    assert not seen["validated"] & seen["normal"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"known_defects": 5, "removed_defects": 3}, "what is learnt must not be tested"),
        ({"known_defects": -1}, "must lie between 0"),
        ({"seed": None}, "needs a seed"),
        ({"val_split_mode": "same_as_test"}, "'same_as_test' would set thresholds by test images"),
        ({"val_split_mode": "from_test"}, "'from_test' would set thresholds by test images"),
        ({"abnormal_dir": None}, "takes its defects out of abnormal_dir"),
        ({"mask_dir": None}, "needs mask_dir"),
    ],
)
def test_what_would_leak_is_refused(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        datamodule(root, **arguments)


def test_more_defects_than_there_are_to_spare_are_refused(root):
    with pytest.raises(ValueError, match=f"{DEFECTS} of {DEFECTS} defective images .* none would remain"):
        datamodule(root, known_defects=DEFECTS).setup()


def test_a_copy_of_a_known_defect_in_the_test_is_named(root, tmp_path):
    folder = shutil.copytree(root, tmp_path / "data")
    known = next(iter(split(datamodule(root, known_defects=1))["known"]))
    shutil.copy(folder / known, folder / "good_test" / "999.png")
    with pytest.raises(ValueError, match=rf"999\.png is a copy of .*{known}"):
        datamodule(folder, known_defects=1).setup()


def test_a_test_image_that_is_also_learnt_is_named(root):
    with pytest.raises(ValueError, match=r"good/.*is a training and a test image"):
        datamodule(root, normal_test_dir="good", known_defects=1).setup()


def test_a_model_that_would_learn_defects_as_normals_is_refused(root, tmp_path):
    with pytest.raises(ValueError, match=r"VmpfdAd learns from normal images alone.*known_defects=0"):
        tiny.engine(tmp_path).fit(tiny.model(), datamodule=datamodule(root, known_defects=2))


@pytest.fixture
def watched():
    """Files that a training of the model with five known defects gives to each of its parts."""
    seen: dict[str, list[str]] = {"fit_normals": [], "take_defects": [], "loss_terms": [], "observe": []}

    class Watched(Prn):
        def take_defects(self, defects):
            batches = list(defects)
            seen["take_defects"] += [path for batch in batches for path in batch.image_path]
            super().take_defects(batches)

        def fit_normals(self, images):
            seen["fit_normals"] += images.paths
            super().fit_normals(images)

        def loss_terms(self, batch):
            seen["loss_terms"] += batch.image_path
            return super().loss_terms(batch)

        def observe(self, batch):
            seen["observe"] += batch.image_path
            return super().observe(batch)

    return Watched, seen


def test_a_known_defect_reaches_the_loss_but_neither_prototypes_nor_calibration(root, tmp_path, watched, monkeypatch):
    model_type, seen = watched
    known: list[int] = []

    class Counting(lightning_model.Synthesis):
        def __call__(self, images, defects, seed):
            known.append(len(defects))
            return super().__call__(images, defects, seed)

    monkeypatch.setattr(lightning_model, "Synthesis", Counting)
    model = model_type(image_size=(64, 64), channels=(4, 4, 8), depth=1, epochs=1, held_out=0.25, visualizer=False)
    tiny.engine(tmp_path).fit(model, datamodule=datamodule(root, known_defects=5))
    kinds = {name: {Path(path).parent.name for path in paths} for name, paths in seen.items()}
    assert kinds == {"fit_normals": {"good"}, "take_defects": {"bad"}, "loss_terms": {"good"}, "observe": {"good"}}
    assert len(seen["take_defects"]) == 5
    assert set(known) == {5}, "every step has all known defects to draw from"
    assert not set(seen["observe"]) & set(seen["loss_terms"]), "held-out images"
    assert model.post_processor.image_threshold.isfinite()


def test_a_known_defect_without_a_mask_pixel_is_named(root, tmp_path):
    folder = shutil.copytree(root, tmp_path / "data")
    for mask in (folder / "mask").iterdir():
        tiny.save(mask, np.zeros((tiny.SIDE, tiny.SIDE), np.uint8))
    model = Prn(image_size=(64, 64), channels=(4, 4, 8), depth=1, visualizer=False)
    with pytest.raises(ValueError, match=r"mask of the known defect .*bad/\d+\.png marks no pixel at 64x64"):
        tiny.engine(tmp_path).fit(model, datamodule=datamodule(folder, known_defects=2))
