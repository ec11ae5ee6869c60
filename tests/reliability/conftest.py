# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Every test of this folder and of ``tests/faults`` is a row of ``results/reliability/cases.csv``."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # also for ``tests/faults``

import tiny

# imports anomalib once, and starts a clean process in no time
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["anomalib.engine", "anomalib_vmpfd.models.vmpfd_ad", "anomalib.data"])


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
