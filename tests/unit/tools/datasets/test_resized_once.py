# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Training images are what the preprocessing would make of them, test images what they were."""

import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data.utils import read_image
from PIL import Image

from anomalib_vmpfd import VmpfdAd

SCRIPT = Path(__file__).parents[4] / "tools" / "datasets" / "resized_once.py"


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for name, mode in (
        ("part/train/good/0.png", "L"),
        ("part/train/good/1.jpg", "RGB"),
        ("part/test/dent/0.jpg", "RGB"),
    ):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (90, 150, 3), np.uint8)).convert(mode).save(path)
    return tmp_path / "data"


def run(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_only_training_images_are_resized_and_as_the_preprocessing_does(data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(monkeypatch, "--data", data, "--out", out, "--size", 64)
    preprocess = VmpfdAd(image_size=(64, 64)).pre_processor
    for name in ("0.png", "1.jpg"):
        expected = preprocess(read_image(data / "part/train/good" / name, as_tensor=True)[None])[0]
        resized = read_image((out / "part/train/good" / name).with_suffix(".png"), as_tensor=True)
        torch.testing.assert_close(resized, expected, rtol=0, atol=0.51 / 255)
    assert (out / "part/test/dent/0.jpg").read_bytes() == (data / "part/test/dent/0.jpg").read_bytes()


def test_nothing_is_written_over_and_a_wrong_folder_is_named(data, tmp_path, monkeypatch, capsys):
    (tmp_path / "out").mkdir()
    twins = Path(shutil.copytree(data, tmp_path / "twins"))
    shutil.copy(twins / "part/train/good/1.jpg", twins / "part/train/good/0.jpg")
    for folder, out, message in (
        (data, tmp_path / "out", "out exists"),
        (data / "part/test", tmp_path / "new", "holds no folder 'train'"),
        (twins, tmp_path / "new", "0.jpg and its namesake would become one PNG"),
    ):
        with pytest.raises(SystemExit):
            run(monkeypatch, "--data", folder, "--out", out)
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
