# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Transposed-convolution decoder."""

import pytest
import torch
from torch import nn

from anomalib_vmpfd.nn.image_decoder import TransposedConvDecoder

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("scale", [1, 4, 32, 64])
def test_image_is_scale_times_the_features_within_tanh(scale: int) -> None:
    decoder = TransposedConvDecoder(24, out_channels=1, scale=scale)
    image = decoder(10 * torch.randn(2, 24, 2, 3))
    assert image.shape == (2, 1, 2 * scale, 3 * scale)
    assert image.abs().max() <= 1
    kinds = [type(layer) for layer in decoder.layers]
    assert (kinds.count(nn.ConvTranspose2d), kinds.count(nn.BatchNorm2d), kinds.count(nn.ReLU)) == (6, 5, 5)
    assert kinds[-1] is nn.Tanh


def test_a_feature_cell_paints_its_whole_patch_and_little_else() -> None:
    torch.manual_seed(0)
    decoder = TransposedConvDecoder(32, scale=16, num_layers=6).eval()
    features = torch.randn(1, 32, 9, 9)
    changed = features.clone()
    changed[0, :, 4, 4] += 5.0
    with torch.no_grad():
        moved = ((decoder(changed) - decoder(features)).abs().amax(1)[0] > 0).nonzero()
    # two 3x3 layers reach two cells; the doublings add just under one cell more on each side
    low, high = moved.amin().item(), moved.amax().item()
    assert low <= 4 * 16
    assert high >= 5 * 16 - 1
    assert low > (4 - 3) * 16 - 1
    assert high < (5 + 3) * 16
    assert low - 0 == 9 * 16 - 1 - high, "the reach must be symmetric: no shift between features and image"


def test_decoder_learns_a_picture_from_its_features() -> None:
    torch.manual_seed(0)
    decoder = TransposedConvDecoder(16, scale=8)
    features = torch.randn(4, 16, 4, 4)
    rows = torch.linspace(-0.8, 0.8, 32)
    target = (rows[:, None] * torch.tensor([1.0, -1.0, 0.5, -0.5])[:, None, None]).unsqueeze(1).expand(4, 3, 32, 32)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    for _ in range(80):
        loss = (decoder(features) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05 * target.var()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 24}, "must be a power of two, got 24"),
        ({"scale": 128}, "needs at least 7 decoder layers, got num_layers=6"),
    ],
)
def test_impossible_scales_name_the_cure(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransposedConvDecoder(8, **arguments)
