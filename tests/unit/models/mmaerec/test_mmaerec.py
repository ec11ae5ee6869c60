# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Mmaerec as anomalib's module: its schedule, its arguments; training and checkpoints are under contract."""

from types import SimpleNamespace

import pytest

from anomalib_vmpfd import Mmaerec


def test_the_rate_falls_at_half_and_at_four_fifths():
    """Epochs 300 and 480 of the paper's 600, times 0.2 each."""
    model = Mmaerec(image_size=(64, 64), extractor=None, base_width=4, lr=1.0, visualizer=False)
    model._trainer = SimpleNamespace(estimated_stepping_batches=10)
    optimizers = model.configure_optimizers()
    optimizer, scheduler = optimizers["optimizer"], optimizers["lr_scheduler"]
    assert scheduler["interval"] == "step"
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler["scheduler"].step()
    assert rates == pytest.approx([1.0] * 5 + [0.2] * 3 + [0.04] * 2)


@pytest.mark.parametrize("given", [{"extractor_args": {"weights": "official"}}, {"num_items": 50}, {"alpha": 0.0}])
def test_arguments_of_memories_that_are_not_there_are_refused(given):
    with pytest.raises(ValueError, match=rf"no memories, and {next(iter(given))} would .*'timm/tf_efficientnet_lite2'"):
        Mmaerec(**given)


def test_memories_have_the_papers_settings_unless_told():
    """Figure 8, and section 2.5."""
    model = Mmaerec(extractor="timm/tf_efficientnet_lite2").model
    assert [memory.items.shape[0] for memory in model.memories] == [30] * 4
    assert (model.memories[0].threshold, model.alpha) == (1 / 30, 2e-4)
    assert Mmaerec(extractor="timm/tf_efficientnet_lite2", num_items=50).model.memories[0].items.shape[0] == 50


@pytest.mark.parametrize("extractor", ["timm/resnet18", "pdn_small"])
def test_an_extractor_without_stages_says_what_it_needs(extractor):
    with pytest.raises(
        ValueError, match=rf"extractor='{extractor}' must be 'timm/<backbone>' with extractor_args.layers"
    ):
        Mmaerec(extractor=extractor)
