# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The mixture of the paper: tokens beside the cells they belong to, and what it can learn."""

import pytest
import torch
from described import features
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.models.vmpfd_ad.predicted_mixture import PredictedMixture
from anomalib_vmpfd.nn.grid import Axis, Grid
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor


@pytest.fixture(scope="module")
def descriptor() -> PatchDescriptor:
    return PatchDescriptor("pdn_small", (64, 64))


def test_tokens_of_the_paper_preset_arrive_where_its_cells_lie():
    """Cells lie at 28 + 28 i pixels, tokens at 15.5 + 32 i: a ramp over x stays that ramp, at the cells' centres."""
    model = VmpfdAd(
        image_size=(256, 256),
        descriptor="pdn_small",
        descriptor_args={"grid": 8},
        encoder_args={"dim": 16, "depth": 0},
        density="predicted",
        density_args={"num_components": 1, "target": "self"},
        reconstruction="pixels",
        visualizer=False,
    ).model
    assert model.descriptor.grid == Grid(*[Axis(8, 28.0, 28.0)] * 2)
    assert model.encoder.grid == Grid(*[Axis(8, 32.0, 15.5)] * 2)
    ramp = (15.5 + 32 * torch.arange(8)).expand(1, 16, 8, 8)
    expected = (28 + 28.0 * torch.arange(8)).expand(1, 16, 8, 8)
    torch.testing.assert_close(model.density.to_cells(ramp), expected)
    torch.testing.assert_close(model.density.to_cells(ramp.mT), expected.mT)


def test_it_learns_where_a_defect_is(descriptor):
    torch.manual_seed(0)
    density = PredictedMixture((64, 64), descriptor, None, features="descriptor", num_components=2).train()
    optimizer = torch.optim.Adam(density.parameters(), lr=1e-2)
    basis = torch.randn(4, descriptor.channels)

    def normals(count: int):
        # descriptors of few degrees of freedom, as a narrow code can keep
        return features(torch.einsum("bkhw, kc -> bchw", torch.randn(count, 4, 8, 8), basis) / 2)

    for _ in range(80):
        loss = density.loss(normals(8))["nll"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    new = normals(1)
    new.descriptors[0][0, :, 2, 5] += torch.randn(descriptor.channels)
    with torch.no_grad():
        (nll,) = density.eval().score(new)
    assert divmod(nll.flatten().argmax().item(), 8) == (2, 5)


def test_a_training_step_samples_cells_and_a_score_does_not(descriptor):
    density = PredictedMixture((64, 64), descriptor, None, features="descriptor", num_components=1, train_cells=5)
    seen = features(torch.randn(2, descriptor.channels, 8, 8))
    assert density.train()._condition_and_target(seen)[1].shape == (2, descriptor.channels, 5, 1)
    assert density.eval()._condition_and_target(seen)[1].shape == (2, descriptor.channels, 8, 8)


def test_smoothing_is_in_pixels_of_the_map(descriptor):
    scores = torch.rand(1, 8, 8)
    sharp, smooth = (
        PredictedMixture((64, 64), descriptor, None, features="descriptor", smoothing=sigma).anomaly_map((scores,))
        for sigma in (0.0, 4.0)
    )
    weight = torch.exp(-0.5 * (torch.arange(-24, 25) / 4.0).square())
    kernel = weight[:, None] * weight / weight.sum() ** 2
    expected = F.conv2d(sharp, kernel[None, None])
    torch.testing.assert_close(smooth[..., 24:-24, 24:-24], expected, rtol=1e-3, atol=1e-4)
