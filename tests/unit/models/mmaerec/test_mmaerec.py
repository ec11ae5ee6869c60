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


def test_arguments_of_an_extractor_that_is_not_there_are_refused():
    with pytest.raises(ValueError, match="extractor_args has no effect"):
        Mmaerec(extractor=None, extractor_args={"weights": "official"})


@pytest.mark.parametrize("extractor", ["timm/resnet18", "pdn_small"])
def test_an_extractor_without_stages_says_what_it_needs(extractor):
    with pytest.raises(
        ValueError, match=rf"extractor='{extractor}' must be 'timm/<backbone>' with extractor_args.layers"
    ):
        Mmaerec(extractor=extractor)
