# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Every model refuses what would give other scores without a word, and names what it cannot use."""

import shutil

import numpy as np
import pytest
import torch
from anomalib.models import list_models

import tiny
from anomalib_vmpfd import MODELS

IMAGES = torch.rand(2, 3, 64, 64)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ((255 * IMAGES).to(torch.uint8), ValueError, r"floating-point in \[0, 1\], got torch.uint8"),
        (255 * IMAGES, ValueError, "divide 8-bit values by 255"),
        (2 * IMAGES - 1, ValueError, r"must lie in \[0, 1\], these go from -"),
        (IMAGES.numpy(), TypeError, "got ndarray.*torch.from_numpy"),
        (IMAGES[0], ValueError, r"images\[None\]"),
        (IMAGES[:, :1], ValueError, r"shape \(B, 3, H, W\)"),
    ],
    ids=["uint8", "0-255", "normalised", "numpy", "no-batch", "grey"],
)
def test_images_that_are_none_end_in_one_error(trained, images, error, message):
    with pytest.raises(error, match=message):
        trained.model.eval()(images)


def test_an_image_that_is_not_finite_is_judged_anomalous(trained):
    images = torch.rand(1, 3, 64, 64)
    images[0, :, 20:40, 20:40] = torch.nan
    with torch.inference_mode():
        seen = trained.model.eval()(images)
    assert seen.pred_label.all()
    assert seen.pred_score.isfinite().all()


def test_images_of_any_size_are_taken(trained):
    with torch.inference_mode():
        seen = trained.model.eval()(torch.rand(1, 3, 90, 50))
    assert seen.anomaly_map.shape == (1, 1, 64, 64)


def test_an_unknown_argument_is_refused_by_name(entry):
    (name, value), *_ = entry.bad_arguments.items()
    with pytest.raises((TypeError, ValueError), match=next(iter(value)) if isinstance(value, dict) else name):
        entry.build(**entry.bad_arguments)


def test_an_image_that_cannot_be_read_is_named_before_anything_is_learnt(entry, few, tmp_path):
    root = shutil.copytree(few().root, tmp_path / "data")
    (root / "good" / "007.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"good/007\.png.*[Rr]eplace or remove"):
        tiny.engine(tmp_path).fit(entry.build(), datamodule=few(root=root))
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_folder_without_normal_images_is_named(entry, tmp_path):
    (tmp_path / "data" / "good").mkdir(parents=True)
    with pytest.raises((ValueError, RuntimeError), match="good"):
        tiny.engine(tmp_path).fit(entry.build(), datamodule=tiny.data(tmp_path / "data"))


def test_a_prediction_is_a_picture(entry, trained, sample_root, tmp_path):
    folder = sample_root / "washer" / "test" / "scratch"
    model = entry.build(visualizer=True)
    tiny.engine(tmp_path).predict(model, data_path=folder, ckpt_path=trained.checkpoint)
    assert len(list(tmp_path.rglob("*.png"))) == len(list(folder.iterdir()))


def test_what_it_explains_has_the_size_of_the_map(trained):
    if not hasattr(trained.model.model, "explain"):
        pytest.skip("explains nothing")
    seen = trained.model.explain(torch.rand(3, 80, 60))
    for name, value in seen.items():
        assert value.shape[0] == 1, name
        assert name == "score" or value.shape[-2:] == (64, 64), name
        assert np.isfinite(value.numpy()).all(), name


def test_anomalib_lists_it():
    assert set(MODELS) <= set(list_models(case="pascal"))
