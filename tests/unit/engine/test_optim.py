# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Which parameters decay, and the schedule of the learning rate."""

import pytest
from torch import nn

from anomalib_vmpfd.engine.optim import adamw, weight_decay_groups
from anomalib_vmpfd.nn.vision_mamba import VisionMambaEncoder


def test_mamba_parameters_are_exempt_from_weight_decay() -> None:
    model = nn.Sequential(VisionMambaEncoder((64, 64), dim=16, depth=2), nn.Conv2d(16, 4, 1), nn.Conv2d(4, 4, 1))
    model[2].requires_grad_(requires_grad=False)
    decayed, exempt = weight_decay_groups(model, 0.1)
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    exempt_names = {names[id(parameter)] for parameter in exempt["params"]}
    mixer_names = {f"0.layers.{i}.mixer.{n}" for i in range(2) for n in ("A_log", "A_b_log", "D", "D_b")}
    assert exempt_names == {"0.pos_embed", *mixer_names}
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {names[id(parameter)] for parameter in decayed["params"]} == trainable - exempt_names
    assert len(weight_decay_groups(nn.Linear(2, 2), 0.1)) == 1


def test_the_cosine_schedule_ends_at_zero_and_the_constant_one_stays():
    settings = adamw(nn.Linear(2, 2), 1e-2, 0.0, "cosine", 10)
    optimizer, scheduler = settings["optimizer"], settings["lr_scheduler"]["scheduler"]
    for _ in range(10):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)
    assert settings["lr_scheduler"]["interval"] == "step"
    assert set(adamw(nn.Linear(2, 2), 1e-2, 0.0, "constant", 10)) == {"optimizer"}


def test_nothing_to_train_needs_no_optimizer():
    assert adamw(nn.Linear(2, 2).requires_grad_(requires_grad=False), 1e-2, 0.0, "cosine", 10) is None
