# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Half precision and gradient accumulation, as a trainer's arguments."""

from pathlib import Path

import pytest
import torch
from anomalib.engine import Engine
from state_comparison import BeforeTraining, assert_same_training

from anomalib_vmpfd import SampleParts, VmpfdAd

TINY = {
    "image_size": (64, 64),
    "encoder_args": {"depth": 1, "dim": 32},
    "reconstruction": "descriptors",
    "density_args": {"num_components": 128},
    "visualizer": False,
}


def train(
    root: Path, folder: Path, batch_size: int, model: VmpfdAd | None = None, **arguments
) -> tuple[VmpfdAd, Engine]:
    model = VmpfdAd(**TINY, held_out=0.0) if model is None else model
    datamodule = SampleParts(
        root=root, train_batch_size=batch_size, eval_batch_size=16, num_workers=0, val_split_mode="none"
    )
    engine = Engine(
        accelerator="cpu",
        default_root_dir=folder,
        limit_val_batches=0,
        enable_progress_bar=False,
        logger=False,
        **arguments,
    )
    engine.fit(model, datamodule=datamodule)
    return model, engine


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_ends_finite_and_finds_the_defects(sample_root, tmp_path, precision):
    model, engine = train(sample_root, tmp_path, 16, VmpfdAd(**TINY), max_epochs=2, precision=precision)
    assert all(p.isfinite().all() for p in model.parameters())
    assert model.post_processor.image_threshold.isfinite()
    metrics = engine.test(model, datamodule=engine.trainer.datamodule, verbose=False)[0]
    assert metrics["image_AUROC"] > 0.7
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_accumulated_gradients_are_those_of_the_whole_batch(sample_root, tmp_path):
    before = BeforeTraining()
    whole, _ = train(sample_root, tmp_path / "whole", 60, max_epochs=2, callbacks=[before])
    parts, engine = train(sample_root, tmp_path / "parts", 20, max_epochs=2, accumulate_grad_batches=3)
    assert engine.trainer.global_step == 2
    assert_same_training(parts.state_dict(), whole.state_dict(), before.kinds(whole))
