# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The density branches: the grids they score in, what they learn, and where an anomalous cell shows."""

import pytest
import torch
from anomalib_vmpfd.models.vmpfd_ad.density import PredictedMixture, PrototypeDensity
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.anomaly.branch import Features
from anomalib_vmpfd.nn.grid import Axis, Grid
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor


class Described:
    """Normal images by their descriptors."""

    def __init__(self, descriptors: torch.Tensor, numbers: torch.Tensor | None = None, batch: int = 4) -> None:
        self.descriptors = descriptors
        self.numbers = torch.arange(len(descriptors)) if numbers is None else numbers
        self.batch = batch

    def __len__(self) -> int:
        return len(self.descriptors)

    def __iter__(self):
        for part, numbers in zip(self.descriptors.split(self.batch), self.numbers.split(self.batch), strict=True):
            yield Features(torch.zeros(len(part), 3, 64, 64), part), numbers

    def evenly(self, count: int) -> "Described":
        kept = torch.linspace(0, len(self) - 1, min(count, len(self))).long()
        return Described(self.descriptors[kept], self.numbers[kept], self.batch)


@pytest.fixture(scope="module")
def descriptor() -> PatchDescriptor:
    return PatchDescriptor("pdn_small", (64, 64))


def test_tokens_of_the_paper_preset_arrive_where_its_cells_lie():
    """Cells lie at 28 + 28 i pixels, tokens at 15.5 + 32 i: a ramp over x stays that ramp, at the cells' centres."""
    model = VmpfdAd(
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


def test_an_anomalous_cell_shows_at_the_pixels_that_it_saw():
    """Cell (10, 40) of a PDN sees the pixels 40..72 and 160..192: the maximum lies in their middle."""
    descriptor = PatchDescriptor("pdn_small", (256, 256))
    density = PrototypeDensity((256, 256), descriptor, num_components=4, scales=(1,))
    nll = torch.zeros(1, 56, 56)
    nll[0, 10, 40] = 1
    peak = density.anomaly_map((nll,))[0, 0].flatten().argmax().item()
    assert divmod(peak, 256) == (56, 176)


def test_cells_of_a_coarser_scale_lie_in_the_middle_of_theirs():
    """The square of cells 20 and 21 by 80 and 81 shows between them."""
    descriptor = PatchDescriptor("pdn_small", (256, 256))
    density = PrototypeDensity((256, 256), descriptor, num_components=4, scales=(2,))
    scores = torch.zeros(1, 28, 28)
    scores[0, 10, 20] = 1
    shown = density.anomaly_map((scores,))[0, 0]
    y, x = divmod(shown.flatten().argmax().item(), 256)
    assert (y, x) == (16 + 4 * 20 + 2, 16 + 4 * 40 + 2)


def test_the_map_is_the_mean_over_the_scales(descriptor):
    density = PrototypeDensity((64, 64), descriptor, num_components=4, scales=(1, 4))
    seen = density.anomaly_map((torch.full((2, 8, 8), 3.0), torch.full((2, 2, 2), 5.0)))
    torch.testing.assert_close(seen, torch.full((2, 1, 64, 64), 4.0))


def test_prototypes_do_not_depend_on_the_batches(descriptor):
    normals = torch.randn(9, descriptor.channels, 8, 8)
    heads = []
    for batch in (1, 4, 9):
        torch.manual_seed(0)
        density = PrototypeDensity((64, 64), descriptor, num_components=16)
        density.fit(Described(normals, batch=batch))
        heads.append([head.prototypes for head in density.heads])
    for other in heads[1:]:
        torch.testing.assert_close(other, heads[0], rtol=0, atol=0)


@pytest.mark.parametrize("standardize", [True, False])
def test_scores_left_out_are_by_the_prototypes_of_other_images(descriptor, standardize):
    torch.manual_seed(0)
    normals = Described(torch.randn(6, descriptor.channels, 8, 8))
    density = PrototypeDensity((64, 64), descriptor, num_components=300, scales=(1,), standardize=standardize)
    density.fit(normals)
    (left_out,) = density.score_left_out(normals, thresholds=True)
    (own,) = density.score(next(iter(Described(normals.descriptors, batch=6)))[0])
    assert left_out.shape == own.shape == (6, 8, 8)
    # most cells are prototypes themselves, at no distance from their own image
    assert left_out.mean() > own.mean() + 0.5
    if not standardize:
        assert (left_out >= own - 1e-4).all()


def test_nothing_is_scored_where_nobody_needs_it(descriptor):
    plain = PrototypeDensity((64, 64), descriptor, num_components=4, standardize=False)
    normals = Described(torch.randn(3, descriptor.channels, 8, 8))
    plain.fit(normals)
    assert plain.score_left_out(normals, thresholds=False) is None
    alone = Described(normals.descriptors[:1])
    assert PrototypeDensity((64, 64), descriptor, num_components=4).score_left_out(alone, thresholds=True) is None


def test_a_predicted_mixture_learns_where_a_defect_is(descriptor):
    torch.manual_seed(0)
    density = PredictedMixture((64, 64), descriptor, None, features="descriptor", num_components=2).train()
    optimizer = torch.optim.Adam(density.parameters(), lr=1e-2)
    basis = torch.randn(4, descriptor.channels)

    def normals(count: int) -> Features:
        # descriptors of few degrees of freedom, as a narrow code can keep
        code = torch.randn(count, 4, 8, 8)
        return Features(torch.zeros(count, 3, 64, 64), torch.einsum("bkhw, kc -> bchw", code, basis) / 2)

    for _ in range(80):
        loss = density.loss(normals(8))["nll"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    new = normals(1)
    new.descriptors[0, :, 2, 5] += torch.randn(descriptor.channels)
    with torch.no_grad():
        (nll,) = density.eval().score(new)
    assert divmod(nll.flatten().argmax().item(), 8) == (2, 5)


def test_a_training_step_samples_cells_and_a_score_does_not(descriptor):
    density = PredictedMixture((64, 64), descriptor, None, features="descriptor", num_components=1, train_cells=5)
    features = Features(torch.zeros(2, 3, 64, 64), torch.randn(2, descriptor.channels, 8, 8))
    assert density.train()._condition_and_target(features)[1].shape == (2, descriptor.channels, 5, 1)
    assert density.eval()._condition_and_target(features)[1].shape == (2, descriptor.channels, 8, 8)


def test_smoothing_is_in_pixels_of_the_map(descriptor):
    scores = torch.rand(1, 8, 8)
    sharp, smooth = (
        PrototypeDensity((64, 64), descriptor, num_components=4, scales=(1,), smoothing=sigma).anomaly_map((scores,))
        for sigma in (0.0, 4.0)
    )
    weight = torch.exp(-0.5 * (torch.arange(-24, 25) / 4.0).square())
    kernel = weight[:, None] * weight / weight.sum() ** 2
    expected = F.conv2d(sharp, kernel[None, None])
    torch.testing.assert_close(smooth[..., 24:-24, 24:-24], expected, rtol=1e-3, atol=1e-4)
