# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Half precision, accumulated gradients and a loss that is not finite: what a trainer's arguments may bring about."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins.precision import MixedPrecision
from state_comparison import BeforeTraining, assert_same_training, without_batch_norms
from torch import nn
from trainings import is_trained, scores

import tiny


def assert_finite(model) -> None:
    wrong = [name for name, value in model.state_dict().items() if not value.float().isfinite().all()]
    # anomalib's own F1 threshold is not computed, and NaN says so
    assert not [name for name in wrong if not name.startswith("post_processor.") or "image_threshold" in name]
    assert {parameter.dtype for parameter in model.parameters()} <= {torch.float32}


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_ends_finite(entry, few, tmp_path, precision):
    model, data = entry.build(), few()
    tiny.engine(tmp_path, precision=precision).fit(model, datamodule=data)
    assert_finite(model)
    assert scores(model, data)[0].isfinite().all()


def test_half_precision_finds_defects(entry, parts, tmp_path):
    model, runner, data = entry.build(), tiny.engine(tmp_path, precision="bf16-mixed"), parts()
    runner.fit(model, datamodule=data)
    assert_finite(model)
    assert runner.test(model, datamodule=data, verbose=False)[0]["image_AUROC"] >= entry.image_auroc - 0.1


def test_accumulated_gradients_are_those_of_the_whole_batch(entry, few, tmp_path):
    models, before = [], BeforeTraining()
    for size, parts in ((12, 1), (4, 3)):
        model = without_batch_norms(entry.build())
        model.held_out = 0.0  # twelve images, so that the parts are equal
        runner = tiny.engine(tmp_path / str(size), max_epochs=2, accumulate_grad_batches=parts, callbacks=[before])
        runner.fit(model, datamodule=few(train_batch_size=size))
        assert runner.trainer.global_step == 2
        models.append(model)
    whole, in_parts = models
    assert_same_training(in_parts.state_dict(), whole.state_dict(), before.kinds(whole))


def test_scores_are_no_product_of_tf32(entry, few, tmp_path, monkeypatch):
    """Convolutions on a GPU are rounded to TF32 unless they are told otherwise; verdicts would depend on the device."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    model, data, seen = entry.build(), few(), []
    for part in model.model.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda part, *_: seen.append((part.training, torch.backends.cudnn.allow_tf32)))
    runner = tiny.engine(tmp_path)
    runner.fit(model, datamodule=data)
    assert {tf32 for training, tf32 in seen if not training} <= {False}, "features, and scores of held-out images"
    seen.clear()
    runner.test(model, datamodule=data, verbose=False)
    runner.predict(model, datamodule=data)
    model.eval()(next(iter(data.test_dataloader())).image)
    assert {tf32 for _, tf32 in seen} <= {False}
    assert torch.backends.cudnn.allow_tf32, "the user's own convolutions are left alone"


def test_float16_with_its_scale_trains_where_gradients_are_and_where_none_are(entry, few, tmp_path):
    """Lightning takes bf16 on a CPU, and float16 with a scale of the gradients on a GPU: given here by hand."""
    model, data = entry.build(), few()
    float16 = MixedPrecision("16-mixed", "cpu")
    tiny.engine(tmp_path, plugins=[float16], max_epochs=1).fit(model, datamodule=data)
    assert_finite(model)
    assert (float16.scaler is not None) == is_trained(model)


class Spoil(Callback):
    """Makes a weight NaN in the second epoch, as overflow would."""

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == 1:
            next(part for part in pl_module.model.parameters() if part.requires_grad).data.fill_(float("nan"))


def test_a_loss_that_is_not_finite_names_the_images_and_keeps_the_last_checkpoint(entry, few, tmp_path):
    model, runner = entry.build(), tiny.engine(tmp_path, max_epochs=3, callbacks=[Spoil()])
    if not is_trained(model):
        pytest.skip("trains nothing")
    with pytest.raises(ValueError, match=r"not finite at step 3 .*last checkpoint is unharmed.*good/\d+\.png"):
        runner.fit(model, datamodule=few())
    assert_finite(entry.type.load_from_checkpoint(runner.trainer.checkpoint_callback.best_model_path))
