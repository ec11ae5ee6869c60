# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A small data set, and no network."""

import shutil
import socket
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def few(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a handful of sample parts."""
    root = tmp_path_factory.mktemp("few")
    for folder, count in (("train/good", 4), ("test/good", 1), ("test/scratch", 1), ("ground_truth/scratch", 1)):
        target = root / "washer" / folder
        target.mkdir(parents=True)
        for file in sorted((sample_root / "washer" / folder).iterdir())[:count]:
            shutil.copy(file, target)
    return root


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every connection an error."""

    def refuse(*args: object) -> None:
        pytest.fail(f"connects to {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
