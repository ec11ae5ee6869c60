# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Fixtures of the tests of bad input and hostile files."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tiny
from reliability_fixtures import case, parts

__all__ = ["case", "parts"]


@pytest.fixture(scope="session")
def trained(parts: Path, tmp_path_factory: pytest.TempPathFactory):
    """A trained model and its checkpoint."""
    runner = tiny.engine(tmp_path_factory.mktemp("trained"))
    model = tiny.model()
    runner.fit(model, datamodule=tiny.data(parts))
    return model, Path(runner.trainer.checkpoint_callback.best_model_path)


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], None]]:
    """Makes folders read-only, for root too, whom permissions do not bind."""
    mounted: list[Path] = []

    def protect(folder: Path) -> None:
        if os.geteuid():
            folder.chmod(0o555)
            return
        for options in (["--bind"], ["-o", "remount,ro,bind"]):
            if subprocess.run(["mount", *options, folder, folder], check=False, capture_output=True).returncode:
                pytest.skip("root, and nothing can be mounted read-only here")
            mounted.append(folder)

    yield protect
    for folder in dict.fromkeys(mounted):
        subprocess.run(["umount", "-l", folder], check=True)
