# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What every term of a loss was in every epoch of a training."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Losses(Callback):
    """Terms that a model logs in training, by epoch; a continued training keeps those of its first part."""

    def __init__(self) -> None:
        self.epochs: dict[str, list[float]] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the means over this epoch."""
        del pl_module
        for name, value in trainer.callback_metrics.items():
            if name.startswith("train_") and not name.endswith(("_step", "_epoch")):
                self.epochs.setdefault(name.removeprefix("train_"), []).append(float(f"{value:.5g}"))

    def state_dict(self) -> dict[str, Any]:
        """The epochs so far, for the checkpoint."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after those of the checkpoint."""
        self.epochs = state_dict["epochs"]
