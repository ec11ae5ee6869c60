# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A checkpoint of every model describes itself: a model of defaults with ``ckpt_path`` is the one that was trained."""

import pytest
import torch
from trainings import StopAfter, assert_same_state, is_trained, predictions, scores

import tiny
from anomalib_vmpfd.engine.rebuild import model_of


def test_it_says_which_model_it_is_of(entry, trained):
    assert model_of(trained.checkpoint) == entry.type.__name__


def test_it_predicts_the_same_and_needs_no_weights_file(entry, trained, monkeypatch):
    monkeypatch.setattr(entry.type, "load_pretrained", lambda *_: pytest.fail("a checkpoint has its weights"))
    loaded = entry.type.load_from_checkpoint(trained.checkpoint)
    expected, _ = scores(trained.model, trained.data)
    torch.testing.assert_close(scores(loaded, trained.data)[0], expected, rtol=0, atol=0)
    assert loaded.post_processor.image_threshold == trained.model.post_processor.image_threshold


def test_a_model_of_defaults_tests_and_predicts_exactly_as_the_trained_one(entry, other, tmp_path):
    bare, runner = entry.type(visualizer=False), tiny.engine(tmp_path)
    assert runner.test(bare, datamodule=other.data, ckpt_path=other.checkpoint, verbose=False)[0] == other.metrics
    torch.testing.assert_close(scores(bare, other.data)[0], scores(other.model, other.data)[0], rtol=0, atol=0)
    bare = entry.type(visualizer=False)
    seen = predictions(runner.predict(bare, datamodule=other.data, ckpt_path=other.checkpoint))
    torch.testing.assert_close(seen, other.predictions, rtol=0, atol=0)


def test_a_training_goes_on_from_a_model_of_defaults(entry, other, tmp_path):
    bare = entry.type(visualizer=False)
    longer = other.model.epochs + 1
    runner = tiny.engine(tmp_path, max_epochs=longer)
    runner.fit(bare, datamodule=other.data, ckpt_path=other.checkpoint)
    assert runner.trainer.current_epoch == longer
    given = entry.arguments | entry.other
    assert {name: bare.hparams[name] for name in given if name != "epochs"} == {
        name: value for name, value in given.items() if name != "epochs"
    }


def test_a_model_of_defaults_resumes_to_the_recipes_length_and_the_same_end(entry, other, few, tmp_path):
    if not is_trained(other.model):
        pytest.skip("one epoch is its recipe: there is nothing to resume")
    first = tiny.engine(tmp_path / "part", callbacks=[StopAfter(0)])
    first.fit(entry.build(**entry.other), datamodule=few())
    assert first.trainer.current_epoch == 1
    resumed, runner = entry.type(visualizer=False), tiny.engine(tmp_path / "resumed")
    runner.fit(resumed, datamodule=few(), ckpt_path=first.trainer.checkpoint_callback.best_model_path)
    assert runner.trainer.max_epochs == runner.trainer.current_epoch == other.model.epochs
    assert_same_state(resumed, other.model)
    assert resumed.hparams["lr"] == other.model.hparams["lr"]


def test_an_argument_that_contradicts_it_is_an_error_with_both_values(entry, trained, tmp_path):
    message = r"seed=7 was given, the checkpoint was trained with 0"
    with pytest.raises(ValueError, match=message):
        tiny.engine(tmp_path).test(
            entry.build(seed=7), datamodule=trained.data, ckpt_path=trained.checkpoint, verbose=False
        )
    with pytest.raises(ValueError, match=message):
        entry.type.load_from_checkpoint(trained.checkpoint, seed=7)


def test_a_checkpoint_of_another_model_is_named(entry, trained, tmp_path):
    checkpoint = torch.load(trained.checkpoint, weights_only=True)
    checkpoint["anomalib_vmpfd"]["model"] = "Padim"
    torch.save(checkpoint, tmp_path / "padim.ckpt")
    with pytest.raises(ValueError, match="is of Padim"):
        tiny.engine(tmp_path).test(entry.build(), datamodule=trained.data, ckpt_path=tmp_path / "padim.ckpt")
