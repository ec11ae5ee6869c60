# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Data that are split anew at every run are told of."""

import logging
from types import SimpleNamespace

import pytest
from anomalib.data import Folder

from anomalib_vmpfd.engine.unseeded_split import warn_of_unseeded_split

FOLDER = {"name": "parts", "root": "parts", "normal_dir": "good"}
TESTED = {"abnormal_dir": "bad", "normal_test_dir": "good_test"}


def said(caplog, datamodule) -> str:
    with caplog.at_level(logging.WARNING):
        warn_of_unseeded_split(datamodule)
    return caplog.text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({**TESTED, "val_split_mode": "from_train"}, "val_split_mode=from_train"),
        ({**TESTED, "val_split_mode": "from_test"}, "val_split_mode=from_test"),
        ({"test_split_mode": "synthetic", "val_split_mode": "none"}, "test_split_mode=synthetic"),
        ({"abnormal_dir": "bad", "val_split_mode": "none"}, "no normal_test_dir"),
    ],
)
def test_a_random_split_without_a_seed_is_named_with_the_cure(arguments, named, caplog):
    text = said(caplog, Folder(**FOLDER, **arguments))
    assert f"split at random without a seed ({named})" in text
    assert "--data.seed 42" in text


@pytest.mark.parametrize(
    "arguments",
    [
        {**TESTED, "val_split_mode": "from_train", "seed": 0},
        {**TESTED, "val_split_mode": "none"},
        {"test_split_mode": "none", "val_split_mode": "none"},
    ],
)
def test_the_same_split_at_every_run_is_not(arguments, caplog):
    assert not said(caplog, Folder(**FOLDER, **arguments))


@pytest.mark.parametrize("datamodule", [None, SimpleNamespace(), object()])
def test_a_datamodule_of_ones_own_is_left_alone(datamodule, caplog):
    assert not said(caplog, datamodule)
