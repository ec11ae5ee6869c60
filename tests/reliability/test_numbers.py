# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""No NaN, no infinity: in any precision, and with settings that drive a training apart."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

import tiny
from anomalib_vmpfd import VmpfdAd


def assert_finite(model: VmpfdAd) -> None:
    wrong = [name for name, value in model.state_dict().items() if not value.float().isfinite().all()]
    # anomalib's own F1 threshold is not computed, and NaN says so
    assert not [name for name in wrong if not name.startswith("post_processor.") or "image_threshold" in name]
    with torch.no_grad():
        seen = model.eval()(torch.rand(3, 3, tiny.SIDE, tiny.SIDE))
    assert seen.anomaly_map.isfinite().all()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])  # on a CPU, 16-mixed is bf16-mixed
def test_every_precision_stays_finite(precision, parts, tmp_path, case):
    case(f"10 epochs in {precision}", "everything stays finite")
    model = tiny.model()
    tiny.engine(tmp_path, max_epochs=10, precision=precision).fit(model, datamodule=tiny.data(parts))
    assert_finite(model)


@pytest.mark.parametrize(
    "arguments",
    [
        {"density_args": {"num_components": 3, "sigma_floor": 1e-6, "beta": 50.0}},
        {"density_args": {"num_components": 3}, "reconstruction_args": {"lambda_mse": 1e6}},
        {"density_args": {"num_components": 3}, "lr": 0.5},
    ],
    ids=str,
)
def test_settings_at_the_edge_stay_finite(arguments, parts, tmp_path, case):
    case(f"training with {arguments}", "everything stays finite")
    model = tiny.model(density="predicted", **arguments)
    tiny.engine(tmp_path, max_epochs=3).fit(model, datamodule=tiny.data(parts))
    assert_finite(model)


class Spoil(Callback):
    """Makes a weight NaN in the second epoch, as overflow would."""

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == 1:
            next(part for part in pl_module.model.parameters() if part.requires_grad).data.fill_(float("nan"))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_loss_that_is_not_finite_stops_with_its_images(precision, parts, tmp_path, case):
    runner = tiny.engine(tmp_path, max_epochs=3, precision=precision, callbacks=[Spoil()])
    with pytest.raises(ValueError, match=r"not finite at step 3 .*last checkpoint is unharmed.*good/\d+\.png") as error:
        runner.fit(tiny.model(), datamodule=tiny.data(parts))
    message = str(error.value).replace(str(parts), "")[:250]
    case(f"weights turned NaN in {precision}", "stops, names the images, keeps the last checkpoint", message, "yes")
    assert_finite(VmpfdAd.load_from_checkpoint(Path(runner.trainer.checkpoint_callback.best_model_path)))
