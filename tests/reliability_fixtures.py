# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Fixtures of this folder and of ``tests/faults``, where every test is a row of ``results/reliability/cases.csv``."""

from collections.abc import Callable
from pathlib import Path

import pytest

import tiny


@pytest.fixture
def case(record_property) -> Callable[..., None]:
    """Name the row: what is done to the package, what it shall do, and what it said."""

    def record(name: str, shall: str, message: object = "", nothing_lost: str = "") -> None:
        said = " ".join(str(message).split())
        for key, value in (("case", name), ("shall", shall), ("message", said), ("nothing_lost", nothing_lost)):
            record_property(key, value)

    return record


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Normal images, and test images with masks."""
    return tiny.with_defects(tmp_path_factory.mktemp("parts"))
