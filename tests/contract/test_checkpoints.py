# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A checkpoint of every model describes itself."""

import pytest
import torch

from anomalib_vmpfd.engine.rebuild import model_of
from conftest import engine, scores


def test_it_says_which_model_it_is_of(trained):
    assert model_of(trained.checkpoint) == trained.entry.type.__name__


def test_it_predicts_the_same_and_needs_no_weights_file(trained, monkeypatch):
    monkeypatch.setattr(trained.entry.type, "load_pretrained", lambda *_: pytest.fail("a checkpoint has its weights"))
    loaded = trained.entry.type.load_from_checkpoint(trained.checkpoint)
    expected, _ = scores(trained.model, trained.data)
    torch.testing.assert_close(scores(loaded, trained.data)[0], expected, rtol=0, atol=0)
    assert loaded.post_processor.image_threshold == trained.model.post_processor.image_threshold


@pytest.fixture(scope="module")
def other(entry, few, tmp_path_factory):
    """A model with arguments that are no defaults, its checkpoint and its test metrics."""
    model, data = entry.build(**entry.other), few()
    runner = engine(tmp_path_factory.mktemp("other"))
    runner.fit(model, datamodule=data)
    metrics = runner.test(model, datamodule=data, verbose=False)[0]
    return model, data, runner.trainer.checkpoint_callback.best_model_path, metrics


def test_a_model_of_defaults_becomes_what_was_trained(entry, other, tmp_path):
    model, data, checkpoint, metrics = other
    bare = entry.type(visualizer=False)
    assert engine(tmp_path).test(bare, datamodule=data, ckpt_path=checkpoint, verbose=False)[0] == metrics
    torch.testing.assert_close(scores(bare, data)[0], scores(model, data)[0], rtol=0, atol=0)
    predicted = engine(tmp_path).predict(entry.type(visualizer=False), datamodule=data, ckpt_path=checkpoint)
    seen = torch.cat([batch.pred_score for batch in predicted])
    torch.testing.assert_close(seen, scores(model, data)[0], rtol=1e-3, atol=1e-4)


def test_a_training_goes_on_from_a_model_of_defaults(entry, other, tmp_path):
    _, data, checkpoint, _ = other
    bare = entry.type(visualizer=False)
    longer = other[0].epochs + 1
    runner = engine(tmp_path, max_epochs=longer)
    runner.fit(bare, datamodule=data, ckpt_path=checkpoint)
    assert runner.trainer.current_epoch == longer
    given = entry.arguments | entry.other
    assert {name: bare.hparams[name] for name in given if name != "epochs"} == {
        name: value for name, value in given.items() if name != "epochs"
    }


def test_an_argument_that_contradicts_it_is_an_error_with_both_values(trained, tmp_path):
    contradicting = trained.entry.build(seed=7)
    with pytest.raises(ValueError, match=r"seed=7 was given, the checkpoint was trained with 0"):
        engine(tmp_path).test(contradicting, datamodule=trained.data, ckpt_path=trained.checkpoint, verbose=False)


def test_a_checkpoint_of_another_model_is_named(trained, tmp_path):
    checkpoint = torch.load(trained.checkpoint, weights_only=True)
    checkpoint["anomalib_vmpfd"]["model"] = "Padim"
    torch.save(checkpoint, tmp_path / "padim.ckpt")
    with pytest.raises(ValueError, match="is of Padim"):
        engine(tmp_path).test(trained.entry.build(), datamodule=trained.data, ckpt_path=tmp_path / "padim.ckpt")
