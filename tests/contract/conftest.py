# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Every check of this folder runs for every entry: a new model is under contract with one entry."""

from collections.abc import Callable
from pathlib import Path

import pytest
from anomalib.data import AnomalibDataModule
from entries import ENTRIES, Entry
from trainings import Trained, predictions

import tiny
from anomalib_vmpfd import SampleParts


@pytest.fixture(scope="session", params=ENTRIES, ids=str)
def entry(request: pytest.FixtureRequest) -> Entry:
    """A model under contract."""
    return ENTRIES[request.param]


@pytest.fixture(scope="session")
def parts(sample_root: Path) -> Callable[..., SampleParts]:
    """Makes datamodules of the sample parts."""

    def make(**arguments) -> SampleParts:
        sizes = {"train_batch_size": 16, "eval_batch_size": 16, "num_workers": 0}
        return SampleParts(**({"root": sample_root, "val_split_mode": "none", "seed": 0} | sizes | arguments))

    return make


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AnomalibDataModule]:
    """Makes datamodules of twelve small images, for trainings of which only the way matters."""
    root = tiny.with_defects(tmp_path_factory.mktemp("few"))
    return lambda **arguments: tiny.data(root, **arguments)


@pytest.fixture(scope="session")
def trained(entry: Entry, parts, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The entry's model, trained after its recipe and tested."""
    return train(entry.build(), parts(), tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def other(entry: Entry, few, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model of arguments that are no defaults, trained on few images and tested."""
    return train(entry.build(**entry.other), few(), tmp_path_factory.mktemp("other"))


def train(model, data: AnomalibDataModule, folder: Path) -> Trained:
    runner = tiny.engine(folder)
    runner.fit(model, datamodule=data)
    metrics = runner.test(model, datamodule=data, verbose=False)[0]
    predicted = predictions(runner.predict(model, datamodule=data))
    return Trained(model, runner, data, Path(runner.trainer.checkpoint_callback.best_model_path), metrics, predicted)
