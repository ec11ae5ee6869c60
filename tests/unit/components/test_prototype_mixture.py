# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Prototypes cover the normals as well as anomalib's coreset, and score what SciPy scores."""

import torch
from anomalib.models.components import KCenterGreedy
from scipy.spatial.distance import cdist

from anomalib_vmpfd.components.prototype_mixture import PrototypeMixtureHead, farthest_points


def test_score_is_the_distance_to_the_nearest_prototype():
    torch.manual_seed(0)
    head = PrototypeMixtureHead(12, num_components=20)
    head.fit_prototypes(torch.randn(300, 12))
    y = 3 * torch.randn(2, 12, 4, 5)
    cells = y.movedim(1, -1).reshape(-1, 12) / head.std
    expected = cdist(cells, head.prototypes).min(1).reshape(2, 4, 5) / 12**0.5
    torch.testing.assert_close(head.score(y), torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-5)


def test_an_image_that_was_learnt_is_judged_by_the_others_as_if_it_were_new():
    torch.manual_seed(0)
    images = torch.randn(6, 5, 4, 4)
    cells, sources = images.movedim(1, -1).reshape(-1, 5), torch.arange(6).repeat_interleave(16)
    head = PrototypeMixtureHead(5, num_components=60)
    head.fit_prototypes(cells, sources)
    for number in range(6):
        # a prototype is a cell: where it came from is found again by its values
        own = cells[sources == number] / head.std
        others = [row for row in head.prototypes if not torch.isclose(own, row).all(1).any()]
        expected = cdist(own, torch.stack(others)).min(1).reshape(1, 4, 4) / 5**0.5
        seen = head.score(images[number : number + 1], torch.tensor([number]))
        torch.testing.assert_close(seen, torch.from_numpy(expected).float(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(head.score(images, torch.arange(6))[5:], seen)


def test_coverage_is_that_of_anomalibs_coreset():
    """The farthest normal is no farther from the coreset than with KCenterGreedy, in few and in many channels."""
    torch.manual_seed(0)
    for channels in (4, 168):
        # clusters of very different size: a random choice would miss the small ones
        centres = 5 * torch.randn(60, channels)
        points = centres[(60 * torch.rand(3000) ** 3).long()] + torch.randn(3000, channels)
        own = points[farthest_points(points, 150)]
        theirs = points[torch.as_tensor(KCenterGreedy(points, 0.05).select_coreset_idxs())]
        radius = [cdist(points, coreset).min(1).max() for coreset in (own, theirs)]
        assert radius[0] < 1.1 * radius[1]


def test_indices_differ_even_where_points_do_not():
    assert farthest_points(torch.ones(50, 3), 20).unique().numel() == 20
