# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The torch model is figure 3: residuals, fusion, attention, a U-Net, and the mean of the top pixels."""

import pytest
import torch

from anomalib_vmpfd import Prn
from anomalib_vmpfd.models.prn.torch_model import image_score

SIDE = 64


@pytest.fixture(scope="module")
def model():
    return Prn(image_size=(SIDE, SIDE), channels=(4, 4, 8), depth=1, visualizer=False).model


def test_the_image_score_is_the_mean_of_the_100_most_anomalous_pixels():
    torch.manual_seed(0)
    logits = 4 * torch.randn(3, 1, 32, 32)
    expected = logits.sigmoid().flatten(1).sort(descending=True).values[:, :100].mean(1)
    torch.testing.assert_close(image_score(logits).sigmoid(), expected)
    # in float32 the mean itself is 1 for both
    assert image_score(torch.full((1, 1, 20, 20), 40.0)) > image_score(torch.full((1, 1, 20, 20), 30.0))
    assert image_score(torch.zeros(1, 1, 4, 4)) == 0, "fewer pixels than 100"


def test_training_moves_all_that_is_not_frozen(model):
    model.train()
    model(torch.rand(2, 3, SIDE, SIDE), torch.ones(2, 1, SIDE, SIDE))["focal"].backward()
    still = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert still == []
    frozen = {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"descriptor"}


def test_an_untrained_map_says_normal(model):
    seen = model.eval()(torch.rand(1, 3, SIDE, SIDE))
    assert seen.anomaly_map.shape == (1, 1, SIDE, SIDE)
    assert seen.anomaly_map.max() < 0.5


def test_training_without_masks_is_an_error(model):
    with pytest.raises(ValueError, match="give them in training"):
        model.train()(torch.rand(2, 3, SIDE, SIDE))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": (72, 64)}, "multiples of 16"),
        ({"channels": (4, 5, 8)}, "must be an even number"),
        ({"prototypes": 0.0}, "share of the normal images"),
        ({"target_area": "edge"}, "Unknown target_area='edge'; choose one of 'part', 'image'"),
        ({"descriptor_args": {"stage": 1}}, "descriptor_args has no 'stage'"),
        ({"descriptor_args": {"layers": [["blocks.1"], ["blocks.2"], ["blocks.6"]]}}, "half the size"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Prn(**({"image_size": (SIDE, SIDE)} | arguments))


def test_the_papers_backbone_gives_the_papers_channels():
    model = Prn(image_size=(SIDE, SIDE), descriptor="timm/resnet18", channels=None, visualizer=False).model
    assert [level.channels for level in model.descriptor.levels] == [64, 128, 256]
    assert [level.grid.shape for level in model.descriptor.levels] == [(16, 16), (8, 8), (4, 4)]
    assert [attend[0].embed.in_channels for attend in model.attention] == [128, 256, 512]
