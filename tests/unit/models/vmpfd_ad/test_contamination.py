# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Defects among the training images are left out by name."""

import re

import numpy as np
import pytest
import torch

import tiny
from anomalib_vmpfd import VmpfdAd

ARGUMENTS = {"image_size": (tiny.SIDE, tiny.SIDE), "density_args": {"num_components": 64}, "visualizer": False}


def fitted(folder, root, **arguments):
    model = VmpfdAd(**(ARGUMENTS | arguments))
    tiny.engine(folder).fit(model, datamodule=tiny.data(root))
    return model


@pytest.fixture(scope="module")
def polluted(tmp_path_factory):
    """Twelve normals, and four images with a defect each among them."""
    root = tiny.normals(tmp_path_factory.mktemp("polluted"))
    for index, colour in enumerate([(250, 20, 20), (20, 250, 20), (20, 20, 250), (250, 250, 20)]):
        picture = tiny.texture(50 + index)
        picture[4 + 10 * index : 28 + 10 * index, 20:44] = colour
        tiny.save(root / "good" / f"defect_{index}.png", picture)
    return root


def test_images_with_defects_are_left_out_by_name_and_do_not_set_the_threshold(polluted, tmp_path, caplog):
    clean = tiny.normals(tmp_path / "clean")
    wanted = fitted(tmp_path, clean)
    model = fitted(tmp_path, polluted, contamination=0.25)
    left_out = next(text for text in caplog.messages if "are left out" in text)
    assert sorted(re.findall(r"(\w+)\.png", left_out)) == [f"defect_{index}" for index in range(4)]
    # what stays is the clean set: everything learnt from it is the same but for the draw of the cells
    for name in ("descriptor.levels.1.mean", "density.maps.1.maximum"):
        torch.testing.assert_close(model.model.state_dict()[name], wanted.model.state_dict()[name], rtol=0.1, atol=0.05)
    threshold, expected = (float(each.post_processor.image_threshold) for each in (model, wanted))
    assert threshold == pytest.approx(expected, abs=0.01)


def test_defects_that_resemble_each_other_are_left_out(tmp_path, caplog):
    """Each finds the others normal; without rounds normals would be left out in place of some of them."""
    root = tiny.normals(tmp_path / "alike")
    for index in range(8):
        picture = tiny.texture(50 + index)
        top, colour = 10 + 3 * index, np.random.default_rng(index).normal((200, 60, 60), 60)
        picture[top : top + 16, 20:36] = colour.clip(0, 255)
        tiny.save(root / "good" / f"defect_{index}.png", picture)
    fitted(tmp_path, root, contamination=0.4)
    left_out = next(text for text in caplog.messages if "are left out" in text)
    assert sorted(re.findall(r"(\w+)\.png", left_out)) == [f"defect_{index}" for index in range(8)]


def test_the_share_that_is_asked_for_is_left_out(polluted, tmp_path, caplog):
    fitted(tmp_path, polluted, contamination=0.1)
    assert any(text.startswith("2 of 16 training images are left out") for text in caplog.messages)


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ({"contamination": 0.5}, "from 0 to below 0.5"),
        ({"contamination": 0.1, "reconstruction": "descriptors"}, "reconstruction='components'"),
        ({"contamination": 0.1, "held_out": 0.2}, "held_out=0"),
    ],
)
def test_what_cannot_be_is_refused_with_the_cure(arguments, cure):
    with pytest.raises(ValueError, match=re.escape(cure)):
        VmpfdAd(**arguments)
