# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A model becomes what its checkpoint was; what contradicts it is an error that names both values."""

import pytest
import torch

from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.engine.rebuild import KEY, adopt, describe, rebuild

TRAINED = {
    "image_size": (64, 96),
    "encoder_args": {"dim": 16, "depth": 1},
    "reconstruction": "descriptors",
    "density_args": {"num_components": 16, "scales": [{"level": 0, "num_components": 16}], "smoothing": 2.0},
    "map_weights": (0.6, 0.4),
    "held_out": 0.2,
    "lr": 5e-3,
    "epochs": 7,
    "seed": 3,
}


@pytest.fixture(scope="module")
def trained() -> tuple[VmpfdAd, dict]:
    model = VmpfdAd(**TRAINED, visualizer=False)
    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    return model, checkpoint


def test_a_checkpoint_names_its_model_in_plain_data(trained, tmp_path):
    checkpoint = {}
    describe(trained[0], checkpoint)
    assert checkpoint[KEY]["model"] == "VmpfdAd"
    torch.save(trained[1], tmp_path / "model.ckpt")
    assert torch.load(tmp_path / "model.ckpt", weights_only=True)[KEY] == checkpoint[KEY]


@pytest.mark.parametrize("given", [{}, {"image_size": [64, 96], "density_args": TRAINED["density_args"]}], ids=str)
def test_arguments_that_were_not_given_become_those_of_the_checkpoint(trained, given):
    model = VmpfdAd(**given, visualizer=False)
    model.on_load_checkpoint(trained[1])
    model.load_state_dict(trained[1]["state_dict"])
    assert {name: getattr(model, name) for name in ("held_out", "lr", "epochs", "seed")} == {
        name: TRAINED[name] for name in ("held_out", "lr", "epochs", "seed")
    }
    assert model.image_size == (64, 96)
    assert model.model.map_weights == (0.6, 0.4)
    assert [scale.num_components for scale in model.model.density.scales] == [16]
    assert tuple(model.input_size) == (64, 96), "the pre-processor comes along"
    images = torch.rand(2, 3, 80, 80)
    with torch.inference_mode():
        expected, seen = trained[0].eval()(images), model.eval()(images)
    torch.testing.assert_close(seen.anomaly_map, expected.anomaly_map, rtol=0, atol=0)


def test_the_model_stays_in_the_mode_and_leaves_the_users_generator_alone(trained):
    model = VmpfdAd(visualizer=False)
    torch.manual_seed(0)
    rebuild(model, trained[1])
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.rand(1) == after


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image_size": (128, 128)}, r"image_size=\[128, 128\] was given, the checkpoint was trained with \[64, 96\]"),
        ({"map_weights": (0.9, 0.1)}, r"map_weights=\[0.9, 0.1\] was given, .* trained with \[0.6, 0.4\]"),
        (
            {"density_args": {"num_components": 32}},
            r"density_args=\{'num_components': 32\} was given, .*'scales': \[\{'level': 0",
        ),
        ({"reconstruction": None}, "reconstruction=None was given, the checkpoint was trained with descriptors"),
        ({"lr": 1.0}, "lr=1.0 was given, the checkpoint was trained with 0.005"),
    ],
)
def test_a_contradiction_names_both_values(trained, given, message):
    with pytest.raises(ValueError, match=f"Arguments contradict the checkpoint: {message}.*Leave them out"):
        VmpfdAd(**given, visualizer=False).on_load_checkpoint(trained[1])


def test_length_of_a_training_and_memory_may_differ(trained):
    model = VmpfdAd(epochs=20, cache_mb=1.0, visualizer=False)
    model.on_load_checkpoint(trained[1])
    assert (model.epochs, model.cache_mb, model.lr) == (20, 1.0, 5e-3)


def test_a_checkpoint_of_another_model_or_another_version_says_so(trained):
    model = VmpfdAd(visualizer=False)
    with pytest.raises(ValueError, match="is of Padim, not of VmpfdAd; give --model Padim"):
        rebuild(model, {KEY: {"model": "Padim"}})
    old = {"hyper_parameters": {**trained[1]["hyper_parameters"], "mixture": "predicted"}}
    with pytest.raises(ValueError, match=r"saved by version unknown, whose VmpfdAd had other arguments \(mixture\)"):
        rebuild(model, old)


def test_adopted_arguments_leave_the_components_of_the_model():
    model = VmpfdAd(visualizer=False)
    kept = model.pre_processor, model.post_processor, model.evaluator
    adopt(model, {"image_size": (64, 96)})
    assert model.image_size == (64, 96)
    assert (model.pre_processor, model.post_processor, model.evaluator) == kept
    assert None not in kept
