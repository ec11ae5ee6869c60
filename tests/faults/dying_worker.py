# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A training in two processes, the second of which is killed in the third epoch: ``dying_worker.py PARTS RESULTS``."""

import signal
import sys
from pathlib import Path

from lightning.pytorch import Callback
from processes import EPOCHS

import tiny


class Die(Callback):
    """Kill the second process."""

    def on_train_batch_start(self, trainer, *_args) -> None:
        if trainer.global_rank == 1 and trainer.current_epoch == 2:
            signal.raise_signal(signal.SIGKILL)


if __name__ == "__main__":
    parts, results = map(Path, sys.argv[1:])
    engine = tiny.engine(results, max_epochs=EPOCHS, callbacks=[Die()], strategy="ddp", devices=2)
    engine.fit(tiny.model(), datamodule=tiny.data(parts))
