# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Prototypes score what SciPy scores, and learn what NumPy counts."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from anomalib_vmpfd.nn.prototype_mixture import PrototypeMixtureHead

pytestmark = pytest.mark.numeric


def test_score_is_the_distance_to_the_nearest_prototype():
    torch.manual_seed(0)
    head = PrototypeMixtureHead(12, num_components=20)
    head.fit_prototypes(torch.randn(300, 12))
    y = 3 * torch.randn(2, 12, 4, 5)
    cells = y.movedim(1, -1).reshape(-1, 12) / head.std
    expected = cdist(cells, head.prototypes).min(1).reshape(2, 4, 5) / 12**0.5
    torch.testing.assert_close(head.score(y), torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-5)


def test_the_leave_one_image_out_distance_is_that_to_the_prototypes_of_the_others():
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
        seen, _ = head.nearest(images[number : number + 1], torch.tensor([number]))
        torch.testing.assert_close(seen, torch.from_numpy(expected).float(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(head.nearest(images, torch.arange(6))[0][5:], seen)


@pytest.mark.parametrize("count", [37, 60, 256, 384])
def test_the_nearest_prototype_is_found_however_many_there_are(count):
    torch.manual_seed(0)
    head = PrototypeMixtureHead(7, num_components=count)
    head.fit_prototypes(torch.randn(1000, 7))
    y = 2 * torch.randn(3, 7, 5, 5)
    cells = y.movedim(1, -1).reshape(-1, 7) / head.std
    assert head.nearest(y)[1].flatten().tolist() == cdist(cells, head.prototypes).argmin(1).tolist()


def test_spreads_are_what_numpy_counts_around_a_prototype_and_its_neighbours():
    torch.manual_seed(0)
    head = PrototypeMixtureHead(4, num_components=30)
    head.fit_prototypes(torch.randn(500, 4))
    distances, nearest = head.nearest(torch.randn(8, 4, 6, 6))
    head.fit_spreads(distances, nearest)
    d, k = distances.numpy(), nearest.numpy()
    location, spread = [], []
    for row in cdist(head.prototypes, head.prototypes):
        around = d[np.isin(k, np.argsort(row)[:9])]
        weights = np.r_[np.ones(around.size), np.full(d.size, 16 / d.size)]
        values = np.r_[around, d.ravel()]
        location.append(np.average(values, weights=weights))
        spread.append(np.average((values - location[-1]) ** 2, weights=weights) ** 0.5)
    spread = np.maximum(spread, np.sort(spread)[14])  # torch takes the lower median
    np.testing.assert_allclose(head.location, location, rtol=1e-4)
    np.testing.assert_allclose(head.spread, spread, rtol=1e-3)


def test_the_same_distance_scores_higher_where_normals_vary_less():
    """Wherever the parts lie in the image: each picture has them elsewhere."""
    torch.manual_seed(0)

    def images(count):
        varied = torch.rand(count, 1, 8, 8) < 0.5
        noise = torch.randn(count, 6, 8, 8) * torch.where(varied, 1.0, 0.1)
        return torch.where(varied, 5.0, -5.0) + noise, varied[:, 0]

    normals, _ = images(60)
    head = PrototypeMixtureHead(6, num_components=300)
    head.fit_prototypes(normals[:40].movedim(1, -1).reshape(-1, 6))
    head.fit_spreads(*head.nearest(normals[40:]))
    new, varied = images(20)
    score = head.score(new)
    # normal cells are alike in score, though not in distance
    distance, _ = head.nearest(new)
    assert distance[varied].mean() > 2.5 * distance[~varied].mean()
    assert score[varied].mean().sub(score[~varied].mean()).abs() < 0.6
    shifted = head.score(new + 1.0)
    assert shifted[~varied].mean() > 2 * shifted[varied].mean() > 0


def test_leave_one_image_out_scores_are_those_by_the_spreads_of_the_others():
    """Each by the spreads of the others: a single odd image must not excuse itself."""
    torch.manual_seed(0)
    head = PrototypeMixtureHead(4, num_components=50)
    head.fit_prototypes(torch.randn(2000, 4))
    distances, nearest = head.nearest(torch.randn(6, 4, 5, 5))
    distances[2] *= 10
    judged = head.fit_spreads(distances, nearest)
    others = [0, 1, 3, 4, 5]
    head.fit_spreads(distances[others], nearest[others])
    expected = (distances[2] - head.location[nearest[2]]) / head.spread[nearest[2]]
    torch.testing.assert_close(judged[2], expected, rtol=1e-4, atol=1e-3)


def test_a_cell_between_two_prototypes_does_not_jump_from_one_spread_to_the_other():
    head = PrototypeMixtureHead(2, num_components=2)
    head.fit_prototypes(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    head.location.copy_(torch.tensor([0.1, 0.4]))
    head.spread.copy_(torch.tensor([0.5, 2.0]))
    nearest_to = head.nearest(torch.tensor([-1.0, 0.0]).view(1, 2, 1, 1))[1].item()
    middle = torch.tensor([-1e-7, 0.0, 1e-7]) * (1 if nearest_to == 0 else -1)
    scores = head.score(torch.stack([middle, torch.full((3,), 0.7)])[None, :, None])[0, 0]
    assert scores.max() - scores.min() < 1e-3 * scores.abs().max()
    # farther away, each cell is judged by its own prototype alone
    for x, k in ((-0.9, nearest_to), (0.9, 1 - nearest_to)):
        y = torch.tensor([x, 0.7]).view(1, 2, 1, 1)
        expected = (head.nearest(y)[0] - head.location[k]) / head.spread[k]
        torch.testing.assert_close(head.score(y), expected)
