# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real data sets: ``ANOMALIB_VMPFD_DATA``, else ``../shared/data``."""
    root = Path(os.environ.get("ANOMALIB_VMPFD_DATA", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data: {root} is not a folder; set ANOMALIB_VMPFD_DATA")
    return root


@pytest.fixture(scope="session")
def sample_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``root`` of the generated sample parts, category ``washer``."""
    from anomalib_vmpfd.data.sample import make_sample

    return make_sample(tmp_path_factory.mktemp("sample")).parent
