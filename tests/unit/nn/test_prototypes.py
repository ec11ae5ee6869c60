# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Prototypes score what SciPy scores, whatever the precision and the memory at hand."""

import pytest
import torch
from scipy.spatial.distance import cdist

from anomalib_vmpfd.nn import prototypes as module
from anomalib_vmpfd.nn.prototypes import Prototypes

pytestmark = pytest.mark.numeric


def fitted(channels: int, count: int, cells: int = 1000) -> Prototypes:
    """Prototypes of random cells that spread differently in each channel."""
    torch.manual_seed(0)
    prototypes = Prototypes(channels, count)
    prototypes.fit(torch.randn(cells, channels) * torch.linspace(0.5, 2.0, channels))
    return prototypes


@pytest.mark.parametrize("count", [1, 37, 256])
def test_score_is_the_distance_to_the_nearest_prototype(count):
    prototypes = fitted(12, count)
    y = 3 * torch.randn(2, 12, 4, 5)
    cells = y.movedim(1, -1).reshape(-1, 12) / prototypes.std
    expected = cdist(cells, prototypes.means).min(1).reshape(2, 4, 5) / 12**0.5
    torch.testing.assert_close(prototypes(y), torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-5)


def test_prototypes_are_cells_in_units_of_the_spread_of_each_channel():
    torch.manual_seed(0)
    cells = torch.randn(500, 4) * torch.tensor([0.3, 1.0, 2.0, 0.01])
    prototypes = Prototypes(4, 20)
    prototypes.fit(cells)
    # a channel that hardly varies is not blown up
    torch.testing.assert_close(prototypes.std, cells.std(0, unbiased=False).clamp_min(0.1))
    assert prototypes.std[3] == pytest.approx(0.1)
    assert cdist(prototypes.means, cells / prototypes.std).min(1).max() < 1e-5
    assert len(prototypes.means.unique(dim=0)) == 20


def test_fewer_cells_than_prototypes_are_repeated():
    torch.manual_seed(0)
    cells = torch.randn(5, 3)
    prototypes = Prototypes(3, 12)
    prototypes.fit(cells, torch.arange(5))
    torch.testing.assert_close(prototypes(cells.T.reshape(1, 3, 1, 5)), torch.zeros(1, 1, 5), rtol=0, atol=1e-3)
    assert prototypes.sources.tolist() == [0, 1, 2, 3, 4] * 2 + [0, 1]
    y = torch.randn(1, 3, 2, 2)
    expected = cdist(y.movedim(1, -1).reshape(-1, 3) / prototypes.std, cells / prototypes.std).min(1) / 3**0.5
    torch.testing.assert_close(prototypes(y).flatten(), torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-5)


def test_the_leave_one_image_out_distance_is_that_to_the_prototypes_of_the_others():
    torch.manual_seed(0)
    images = torch.randn(6, 5, 4, 4)
    cells, sources = images.movedim(1, -1).reshape(-1, 5), torch.arange(6).repeat_interleave(16)
    prototypes = Prototypes(5, 60)
    prototypes.fit(cells, sources)
    for number in range(6):
        # a prototype is a cell: where it came from is found again by its values
        own = cells[sources == number] / prototypes.std
        others = [row for row in prototypes.means if not torch.isclose(own, row).all(1).any()]
        expected = cdist(own, torch.stack(others)).min(1).reshape(1, 4, 4) / 5**0.5
        seen = prototypes(images[number : number + 1], torch.tensor([number]))
        torch.testing.assert_close(seen, torch.from_numpy(expected).float(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(prototypes(images, torch.arange(6))[5:], seen)


def test_images_that_are_all_the_same_are_not_infinitely_far_from_each_other():
    """Their prototypes may all be of one of them, which then is compared with itself."""
    prototypes = Prototypes(3, 4)
    prototypes.fit(torch.randn(9, 3), torch.zeros(9, dtype=torch.long))
    y = torch.randn(2, 3, 2, 2)
    torch.testing.assert_close(prototypes(y, torch.tensor([0, 1])), prototypes(y))


@pytest.mark.parametrize("at_once", [1, 7 * 37, 10**9])
def test_blocks_of_cells_give_the_same_as_one(at_once, monkeypatch):
    prototypes = fitted(7, 37)
    prototypes.sources.copy_(torch.arange(37) % 3)
    y, numbers = torch.randn(3, 7, 5, 5), torch.tensor([2, 0, 1])
    expected = prototypes(y), prototypes(y, numbers)
    monkeypatch.setattr(module, "DISTANCES_AT_ONCE", at_once)
    # products of other sizes add up in another order
    torch.testing.assert_close((prototypes(y), prototypes(y, numbers)), expected, rtol=1e-5, atol=1e-5)


def test_memory_for_distances_is_bounded(monkeypatch):
    prototypes = fitted(4, 64)
    largest = 0

    def squared(cells: torch.Tensor, owners: torch.Tensor | None) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, len(cells) * 64)
        return Prototypes._squared_distances(prototypes, cells, owners)

    monkeypatch.setattr(module, "DISTANCES_AT_ONCE", 1000)
    monkeypatch.setattr(prototypes, "_squared_distances", squared)
    prototypes(torch.randn(2, 4, 9, 9))
    assert 0 < largest <= 1000


def test_memory_for_distances_is_bounded_in_exports(monkeypatch):
    prototypes = fitted(4, 64).eval()
    monkeypatch.setattr(module, "DISTANCES_AT_ONCE", 1000)
    images = ({0: torch.export.Dim("images", min=1, max=64)},)
    program = torch.export.export(prototypes, (torch.randn(2, 4, 9, 9),), dynamic_shapes=images)
    y = torch.randn(3, 4, 9, 9)
    torch.testing.assert_close(program.module()(y), prototypes(y), rtol=1e-5, atol=1e-5)
    sizes = [value.shape[1:].numel() for node in program.graph.nodes if hasattr(value := node.meta.get("val"), "shape")]
    assert 900 < max(sizes) <= 1000  # of each image


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_faster_and_rougher_products_change_nothing(precision):
    """Distances are small differences of large numbers: with the eight bits of bfloat16 nothing would be left."""
    prototypes = fitted(48, 64)
    y = torch.randn(2, 48, 6, 6) + 50
    expected = prototypes(y)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        seen = prototypes(y)
        assert torch.get_float32_matmul_precision() == precision, "what the user set is set again"
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(seen, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype):
    prototypes = fitted(48, 64)
    y, numbers = torch.randn(2, 48, 6, 6) + 50, torch.arange(2)
    expected = prototypes(y), prototypes(y, numbers)
    with torch.autocast("cpu", dtype):
        seen = prototypes(y), prototypes(y, numbers)
    torch.testing.assert_close(seen, expected, rtol=0, atol=0)


def test_sources_and_means_come_back_with_a_checkpoint():
    prototypes, again = fitted(5, 20), Prototypes(5, 20)
    prototypes.sources.copy_(torch.arange(20))
    again.load_state_dict(prototypes.state_dict())
    y, numbers = torch.randn(2, 5, 3, 3), torch.tensor([4, 7])
    torch.testing.assert_close(again(y, numbers), prototypes(y, numbers), rtol=0, atol=0)
