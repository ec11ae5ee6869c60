# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Long trainings that continue where they were interrupted."""

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class KeptTraining:
    """A checkpoint of every epoch, and the seconds of training that it holds.

    Args:
        path (Path): The file; a training continues from it if it is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = Seconds()
        self.callbacks: list[Callback] = [self.seconds, LastEpoch(path)]

    @property
    def checkpoint(self) -> Path | None:
        """The file if there is one, to give to ``Engine.fit``."""
        return self.path if self.path.is_file() else None


class LastEpoch(ModelCheckpoint):
    """The training as it was at the end of the last epoch; a class of its own, as anomalib's engine has another one."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.parent, path.stem, save_on_train_epoch_end=True, enable_version_counter=False)


class Seconds(Callback):
    """Time of a training, over all its parts."""

    def __init__(self) -> None:
        self._before = 0.0
        self._start = time.perf_counter()

    @property
    def total(self) -> float:
        """Seconds of training until now."""
        return self._before + time.perf_counter() - self._start

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count this part; loading what it continues from does not count."""
        del trainer, pl_module
        self._start = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Seconds, for the checkpoint."""
        return {"seconds": self.total}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from those of the checkpoint."""
        self._before = state_dict["seconds"]
