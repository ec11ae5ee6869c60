# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints describe themselves: a default model with ``ckpt_path`` alone is the one that was trained."""

from pathlib import Path

import pytest
import torch
from anomalib.engine import Engine

from anomalib_vmpfd import SampleParts, VmpfdAd

DENSITY = {"num_components": 64, "scales": [{"level": 0, "side": 2, "num_components": 64}], "smoothing": 3.0}
TRAINED = {
    "density": {"image_size": (64, 96), "density_args": DENSITY, "reconstruction": None, "image_fpr": 0.1},
    "both": {
        "image_size": (96, 64),
        "encoder_args": {"dim": 16, "depth": 1},
        "reconstruction": "descriptors",
        "density_args": DENSITY,
        "map_weights": (0.8, 0.2),
        "map_quantiles": (0.5, 0.9),
        "lr": 3e-3,
        "seed": 5,
    },
    "paper": {
        "image_size": (64, 64),
        "descriptor": "pdn_small",
        "descriptor_args": {"grid": 4},
        "encoder_args": {"dim": 16, "depth": 1},
        "density": "predicted",
        "density_args": {"num_components": 2, "target": "self"},
        "reconstruction": "pixels",
        "reconstruction_args": {"smoothing": 1.0},
    },
}


def engine(folder: Path, **arguments) -> Engine:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    return Engine(default_root_dir=folder, **(quiet | {"limit_val_batches": 0} | arguments))


def parts(root: Path) -> SampleParts:
    return SampleParts(root=root, train_batch_size=16, eval_batch_size=16, num_workers=0, val_split_mode="none", seed=0)


def predictions(batches) -> tuple[torch.Tensor, ...]:
    names = ("pred_score", "anomaly_map", "pred_label")
    return tuple(torch.cat([getattr(batch, name) for batch in batches]) for name in names)


@pytest.fixture(scope="module", params=TRAINED)
def trained(request, sample_root, tmp_path_factory):
    """What a checkpoint was trained with, where it is, and what its model says."""
    arguments, datamodule = TRAINED[request.param], parts(sample_root)
    model = VmpfdAd(**arguments, epochs=1, visualizer=False)
    runner = engine(tmp_path_factory.mktemp("trained"))
    runner.fit(model, datamodule=datamodule)
    metrics = runner.test(model, datamodule=datamodule, verbose=False)[0]
    expected = predictions(runner.predict(model, datamodule=datamodule))
    return arguments, runner.trainer.checkpoint_callback.best_model_path, metrics, expected


def test_a_default_model_predicts_exactly_as_the_trained_one(trained, sample_root, tmp_path):
    _, checkpoint, _, expected = trained
    model = VmpfdAd(visualizer=False)
    seen = predictions(engine(tmp_path).predict(model, datamodule=parts(sample_root), ckpt_path=checkpoint))
    for value, wanted in zip(seen, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=0, atol=0)


def test_a_default_model_tests_exactly_as_the_trained_one(trained, sample_root, tmp_path):
    _, checkpoint, metrics, _ = trained
    model = VmpfdAd(visualizer=False)
    assert (
        engine(tmp_path).test(model, datamodule=parts(sample_root), ckpt_path=checkpoint, verbose=False)[0] == metrics
    )


def test_an_argument_that_contradicts_the_checkpoint_names_both_values(trained, sample_root, tmp_path):
    arguments, checkpoint, _, _ = trained
    height, width = arguments["image_size"]
    # also the default, where it is given by hand
    for size in (128, 256):
        with pytest.raises(ValueError, match=rf"image_size=\[{size}, {size}\].*trained with \[{height}, {width}\]"):
            VmpfdAd.load_from_checkpoint(checkpoint, image_size=(size, size))
    VmpfdAd.load_from_checkpoint(checkpoint, image_size=(height, width), visualizer=False)
    model = VmpfdAd(image_size=(128, 128), visualizer=False)
    with pytest.raises(ValueError, match=rf"image_size=\[128, 128\].*trained with \[{height}, {width}\]"):
        engine(tmp_path).test(model, datamodule=parts(sample_root), ckpt_path=checkpoint)


def test_a_default_model_resumes_to_the_recipes_length_and_the_same_end(sample_root, tmp_path):
    given = {**TRAINED["both"], "epochs": 2, "visualizer": False}
    whole = VmpfdAd(**given)
    engine(tmp_path / "whole").fit(whole, datamodule=parts(sample_root))

    from lightning.pytorch import Callback

    class StopAfterOne(Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            del pl_module
            trainer.should_stop = True

    first = engine(tmp_path / "part", callbacks=[StopAfterOne()])
    first.fit(VmpfdAd(**given), datamodule=parts(sample_root))
    assert first.trainer.current_epoch == 1
    resumed, runner = VmpfdAd(visualizer=False), engine(tmp_path / "resumed")
    runner.fit(resumed, datamodule=parts(sample_root), ckpt_path=first.trainer.checkpoint_callback.best_model_path)
    assert runner.trainer.max_epochs == runner.trainer.current_epoch == 2, "not the default's 3"
    for (name, expected), value in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(
            value, expected, rtol=1e-4, atol=1e-5, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert runner.trainer.optimizers[0].param_groups[0]["initial_lr"] == 3e-3
