# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Every check of this folder runs for every entry: a new model is under contract with one entry."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from anomalib.data import AnomalibDataModule
from anomalib.engine import Engine
from torch import Tensor

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "reliability")]

import tiny  # noqa: E402
from entries import ENTRIES, Entry  # noqa: E402

from anomalib_vmpfd import SampleParts  # noqa: E402


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


def engine(folder: Path, **arguments) -> Engine:
    """A quiet engine on the CPU."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    return Engine(default_root_dir=folder, **(quiet | {"limit_val_batches": 0} | arguments))


def scores(model, datamodule) -> tuple[Tensor, Tensor]:
    """Scores and labels of the test images by the model's own forward, outside any trainer."""
    model.eval()
    datamodule.setup("test")
    seen, labels = [], []
    with torch.inference_mode():
        for batch in datamodule.test_dataloader():
            seen.append(model(batch.image).pred_score)
            labels.append(batch.gt_label)
    return torch.cat(seen), torch.cat(labels)


@dataclass
class Trained:
    """A model trained after its recipe, and what belongs to it."""

    entry: Entry
    model: torch.nn.Module
    engine: Engine
    data: SampleParts
    checkpoint: Path
    metrics: dict[str, float]


@pytest.fixture(scope="session")
def trained(entry: Entry, parts, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The entry's model, trained after its recipe and tested."""
    data, model = parts(), entry.build()
    runner = engine(tmp_path_factory.mktemp("trained"))
    runner.fit(model, datamodule=data)
    checkpoint = Path(runner.trainer.checkpoint_callback.best_model_path)
    metrics = runner.test(model, datamodule=data, verbose=False)[0]
    return Trained(entry, model, runner, data, checkpoint, metrics)
