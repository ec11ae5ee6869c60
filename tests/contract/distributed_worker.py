# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A training that Lightning can start once for each process: ``distributed_worker.py ROOT OUTPUT DEVICES NAME``."""

import json
import os
import sys
from pathlib import Path

import torch
from anomalib.engine import Engine
from entries import ENTRIES
from state_comparison import BeforeTraining, without_batch_norms

import tiny

IMAGES = 24  # an even number also without the tenth that may be held out


def run(root: Path, output: Path, devices: int, name: str, accelerator: str = "cpu") -> None:
    """Train and test; the first process writes what came out, every process what it knows."""
    # one step an epoch with all images, so that their order cannot matter
    datamodule = tiny.data(root, train_batch_size=IMAGES // devices)
    model = without_batch_norms(ENTRIES[name].build())
    before = BeforeTraining()
    engine = Engine(
        max_epochs=3,
        accelerator=accelerator,
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        default_root_dir=output,
        logger=False,
        limit_val_batches=0,
        enable_progress_bar=False,
        callbacks=[before],
    )
    engine.fit(model, datamodule=datamodule)
    rank = engine.trainer.global_rank
    torch.save(model.state_dict(), output / f"state-{devices}-{rank}.pt")
    (output / f"kinds-{devices}-{rank}.json").write_text(json.dumps(before.kinds(model)), encoding="utf-8")
    metrics = engine.test(model, datamodule=datamodule, verbose=False)[0]
    (output / f"metrics-{devices}-{rank}.json").write_text(json.dumps(metrics), encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
