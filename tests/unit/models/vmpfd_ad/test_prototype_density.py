# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Density by prototypes: the grids it scores in, what it learns, and where an anomalous cell shows."""

import pytest
import torch
from described import Described, seen
from scipy.spatial.distance import cdist
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.models.vmpfd_ad import prototype_density
from anomalib_vmpfd.models.vmpfd_ad.prototype_density import PrototypeDensity, Scale
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor

CELLS = [{"level": 0, "num_components": 4}]


@pytest.fixture(scope="module")
def descriptor() -> PatchDescriptor:
    return PatchDescriptor("pdn_small", (64, 64))


def build(descriptor: PatchDescriptor, size: tuple[int, int] = (64, 64), **arguments) -> PrototypeDensity:
    return PrototypeDensity(size, descriptor, **({"smoothing": 0.0} | arguments))


def test_by_default_cells_and_squares_of_the_last_level_count_and_those_of_the_finer_one_show():
    descriptor = PatchDescriptor("timm/tf_efficientnet_lite2", (64, 96))
    density = PrototypeDensity((64, 96), descriptor)
    assert density.scales == [
        Scale(0, 1, 2048, 2.0, in_image_score=False),
        Scale(1, 1, 4096, 2.0),
        Scale(1, 2, 4096, 1.0),
    ]
    assert [each.locations.mean.shape for each in density.maps] == [(16, 24), (8, 12), (4, 6)]
    assert [each.weight for each in density.maps] == [2.0, 2.0, 1.0]
    assert [each.in_image_score for each in density.maps] == [False, True, True]


def test_of_one_level_there_is_no_finer_one(descriptor):
    assert build(descriptor, num_components=64).scales == [Scale(0, 1, 64, 2.0), Scale(0, 2, 64)]


def test_an_anomalous_cell_shows_at_the_pixels_that_it_saw():
    """Cell (10, 40) of a PDN sees the pixels 40..72 and 160..192: the maximum lies in their middle."""
    descriptor = PatchDescriptor("pdn_small", (256, 256))
    density = build(descriptor, (256, 256), scales=CELLS)
    scores = torch.zeros(1, 56, 56)
    scores[0, 10, 40] = 1
    peak = density.anomaly_map((scores,))[0, 0].flatten().argmax().item()
    assert divmod(peak, 256) == (56, 176)


def test_cells_of_a_coarser_scale_lie_in_the_middle_of_theirs():
    """The square of cells 20 and 21 by 40 and 41 shows between them."""
    descriptor = PatchDescriptor("pdn_small", (256, 256))
    density = build(descriptor, (256, 256), scales=[{"level": 0, "side": 2, "num_components": 4}])
    scores = torch.zeros(1, 28, 28)
    scores[0, 10, 20] = 1
    shown = density.anomaly_map((scores,))[0, 0]
    y, x = divmod(shown.flatten().argmax().item(), 256)
    assert (y, x) == (16 + 4 * 20 + 2, 16 + 4 * 40 + 2)


def test_squares_lie_where_they_are_even_if_they_do_not_fill_the_grid():
    """Three by three of eight cells: two squares, whose centres are those of the cells 1 and 4."""
    descriptor = PatchDescriptor("pdn_small", (64, 64))
    density = build(descriptor, scales=[{"level": 0, "side": 3, "num_components": 4}])
    scores = torch.zeros(1, 2, 2)
    scores[0, 1, 1] = 1
    shown = density.anomaly_map((scores,))[0, 0]
    assert shown[16 + 4 * 4, 16 + 4 * 4] == pytest.approx(1.0)
    assert shown[16 + 4, 16 + 4] == pytest.approx(0.0)
    assert shown[16 + 10, 16 + 4 * 4] == pytest.approx(0.5)


def test_the_map_is_the_weighted_mean_over_the_scales(descriptor):
    scales = [{"level": 0, "num_components": 4, "weight": 3.0}, {"level": 0, "side": 4, "num_components": 4}]
    density = build(descriptor, scales=scales)
    seen_map = density.anomaly_map((torch.full((2, 8, 8), 3.0), torch.full((2, 2, 2), 5.0)))
    torch.testing.assert_close(seen_map, torch.full((2, 1, 64, 64), 3.5))


def test_the_image_score_leaves_out_what_is_for_the_map_only(descriptor):
    scales = [{"level": 0, "num_components": 4, "in_image_score": False}, {"level": 0, "side": 4, "num_components": 4}]
    density = build(descriptor, scales=scales)
    scores = torch.rand(2, 8, 8), torch.rand(2, 2, 2)
    torch.testing.assert_close(density.image_score(scores), scores[1].amax((1, 2)))


def test_scores_are_distances_of_the_means_of_squares_to_the_nearest_prototype(descriptor):
    torch.manual_seed(0)
    density = build(descriptor, scales=[{"level": 0, "side": 2, "num_components": 20}])
    density.fit(Described(torch.randn(6, descriptor.channels, 8, 8)))
    new = torch.randn(2, descriptor.channels, 8, 8)
    (prototypes,) = density.prototypes
    squares = F.avg_pool2d(new, 2).movedim(1, -1).reshape(-1, descriptor.channels) / prototypes.std
    expected = cdist(squares, prototypes.means).min(1).reshape(2, 4, 4) / descriptor.channels**0.5
    (scores,) = density.score(seen(new))
    torch.testing.assert_close(scores, torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-4)


def test_each_scale_reads_its_own_level():
    descriptor = PatchDescriptor("timm/tf_efficientnet_lite2", (64, 64))
    density = build(descriptor, num_components=8)
    levels = [torch.randn(3, level.channels, *level.grid.shape) for level in descriptor.levels]
    density.fit(Described(*levels))
    scores = density.score(seen(*levels))
    other = density.score(seen(levels[0] + 1, levels[1]))
    assert not torch.allclose(other[0], scores[0])
    torch.testing.assert_close(other[1:], scores[1:])


def test_prototypes_do_not_depend_on_the_batches(descriptor):
    normals = torch.randn(9, descriptor.channels, 8, 8)
    learnt = []
    for batch in (1, 4, 9):
        torch.manual_seed(0)
        density = build(descriptor, num_components=16)
        density.fit(Described(normals, batch=batch))
        learnt.append(density.prototypes.state_dict())
    for other in learnt[1:]:
        torch.testing.assert_close(other, learnt[0], rtol=0, atol=0)


def test_the_pool_takes_as_many_cells_of_every_image(descriptor, monkeypatch):
    monkeypatch.setattr(prototype_density, "POOL", 30)
    density = build(descriptor, scales=CELLS)
    pools = []
    monkeypatch.setattr(density.prototypes[0], "fit", lambda cells, sources: pools.append((cells, sources)))
    normals = torch.arange(7.0)[:, None, None, None].expand(7, descriptor.channels, 8, 8)
    density.fit(Described(normals))
    cells, sources = pools[0]
    assert sources.tolist() == [number for number in range(7) for _ in range(5)]
    assert torch.equal(cells[:, 0], sources.float())


def test_scores_left_out_are_by_the_prototypes_of_other_images(descriptor):
    torch.manual_seed(0)
    normals = torch.randn(6, descriptor.channels, 8, 8)
    density = build(descriptor, scales=[{"level": 0, "num_components": 300}])
    density.fit(Described(normals))
    (left_out,) = density.score_left_out(Described(normals))
    (own,) = density.score(seen(normals))
    assert left_out.shape == own.shape == (6, 8, 8)
    # most cells are prototypes themselves, at no distance from their own image
    assert left_out.mean() > own.mean() + 0.5
    assert (left_out >= own - 1e-4).all()
    for number in range(6):
        part = density.score_left_out(Described(normals[number : number + 1], numbers=torch.tensor([number])))[0]
        torch.testing.assert_close(part, left_out[number : number + 1], rtol=1e-4, atol=1e-4)


def test_scores_left_out_are_like_those_of_new_images(descriptor):
    torch.manual_seed(0)
    basis = torch.randn(5, descriptor.channels)

    def normals(count: int) -> torch.Tensor:
        return torch.einsum("bkhw, kc -> bchw", torch.randn(count, 5, 8, 8), basis)

    density, images = build(descriptor, scales=[{"level": 0, "num_components": 200}]), normals(20)
    density.fit(Described(images))
    (left_out,), (new,) = density.score_left_out(Described(images)), density.score(seen(normals(40)))
    largest = [scores.amax((1, 2)) for scores in (left_out, new)]
    assert largest[0].mean().item() == pytest.approx(largest[1].mean().item(), rel=0.05)


def test_smoothing_is_in_pixels_of_the_map(descriptor):
    scores = torch.rand(1, 8, 8)
    sharp, smooth = (build(descriptor, scales=CELLS, smoothing=sigma).anomaly_map((scores,)) for sigma in (0.0, 4.0))
    weight = torch.exp(-0.5 * (torch.arange(-24, 25) / 4.0).square())
    kernel = weight[:, None] * weight / weight.sum() ** 2
    expected = F.conv2d(sharp, kernel[None, None])
    torch.testing.assert_close(smooth[..., 24:-24, 24:-24], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ([{"level": 1}], r"Scale\(level=1.*level must be below 1"),
        ([{"level": 0, "side": 0}], "side and num_components at least 1"),
        ([{"level": 0, "num_components": 0}], "side and num_components at least 1"),
        ([{"level": 0, "side": 9}], r"side=9.*does not fit a grid of 8 x 8 cells"),
        ([{"level": 0, "size": 2}], "has the fields level, side, num_components, weight, in_image_score"),
        ([{"side": 2}], "has the fields level"),
        ([{"level": 0, "in_image_score": False}], "None of density_args.scales is in_image_score"),
        ([], "None of density_args.scales is in_image_score"),
        ([1, 2], "has the fields level"),
    ],
    ids=str,
)
def test_scales_that_do_not_fit_are_named(descriptor, scales, message):
    with pytest.raises(ValueError, match=message):
        build(descriptor, scales=scales)
