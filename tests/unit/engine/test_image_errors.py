# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Files that are named: those of a data set, also where a training sees a part of it."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch.utils.data import Subset

from anomalib_vmpfd.engine.image_errors import ImageError, _paths, refuse_deep_images, unreadable


def loader(dataset):
    return SimpleNamespace(dataset=dataset)


def test_held_out_images_are_files_of_a_training_too():
    samples = pd.DataFrame({"image_path": ["a.png", "b.png"], "mask_path": ["m.png", ""]})
    dataset = SimpleNamespace(samples=samples)
    assert _paths(loader(dataset)) == ["a.png", "b.png", "m.png"]
    assert _paths(loader(Subset(Subset(dataset, [1]), [0]))) == ["a.png", "b.png", "m.png"]


def test_data_of_ones_own_have_no_files():
    assert _paths(loader([1, 2])) == _paths(None) == []
    assert _paths(loader(SimpleNamespace(image_filenames=["c.png"]))) == ["c.png"]


def test_only_what_cannot_be_read_is_named(tmp_path):
    whole, broken = tmp_path / "whole.png", tmp_path / "broken.png"
    Image.new("RGB", (8, 8)).save(whole)
    broken.write_bytes(b"")
    assert unreadable([whole, broken]) == {str(broken): "not an image"}


def test_images_of_more_than_8_bits_are_refused_and_named(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "8.png")
    refuse_deep_images([tmp_path / "8.png", tmp_path / "missing.png"])
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(tmp_path / "16.png")
    with pytest.raises(ImageError, match=r"^\S*16\.png: more than 8 bits a pixel.*Convert all images"):
        refuse_deep_images([tmp_path / "8.png", tmp_path / "16.png"])
