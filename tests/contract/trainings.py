# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What the checks ask of a training, and how one is interrupted."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from anomalib.data import AnomalibDataModule, Batch
from anomalib.engine import Engine
from lightning.pytorch import Callback
from torch import Tensor, nn


@dataclass
class Trained:
    """A trained model, and what belongs to it.

    Attributes:
        model (nn.Module): The model.
        engine (Engine): What trained it.
        data (AnomalibDataModule): What it was trained and tested on.
        checkpoint (Path): Its checkpoint.
        metrics (dict[str, float]): Its test metrics.
        predictions (dict[str, Tensor]): What ``Engine.predict`` says of the test images.
    """

    model: nn.Module
    engine: Engine
    data: AnomalibDataModule
    checkpoint: Path
    metrics: dict[str, float]
    predictions: dict[str, Tensor]


class StopAfter(Callback):
    """Interrupts a training at the end of an epoch, as a user would."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        del pl_module
        trainer.should_stop = trainer.current_epoch >= self.epoch


def predictions(batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Predictions of all batches together."""
    batches = list(batches)
    names = ("pred_score", "anomaly_map", "pred_label")
    return {name: torch.cat([getattr(batch, name) for batch in batches]) for name in names}


def scores(model: nn.Module, datamodule: AnomalibDataModule) -> tuple[Tensor, Tensor]:
    """Scores and labels of the test images by the model's own forward, outside any trainer."""
    model.eval()
    datamodule.setup("test")
    seen, labels = [], []
    with torch.inference_mode():
        for batch in datamodule.test_dataloader():
            seen.append(model(batch.image).pred_score)
            labels.append(batch.gt_label)
    return torch.cat(seen), torch.cat(labels)


def is_trained(model: nn.Module) -> bool:
    """Whether a training takes gradients."""
    return any(parameter.requires_grad for parameter in model.parameters())


def assert_same_state(model: nn.Module, expected: nn.Module) -> None:
    """Two models came to the same end, up to the rounding of a resumed sum."""
    for (name, value), wanted in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(
            value, wanted, rtol=1e-4, atol=1e-5, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )
