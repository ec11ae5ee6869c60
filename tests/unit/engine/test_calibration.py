# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Held-out split and thresholds."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from anomalib_vmpfd.engine.calibration import fpr_interval, held_out_indices, threshold_at_fpr

pytestmark = pytest.mark.numeric


def realised(draw: Callable[[int], Tensor], count: int, fpr: float, repeats: int = 400) -> float:
    """Mean share of new normals at or above a threshold from ``count`` normals."""
    thresholds = [threshold_at_fpr(draw(count), fpr) for _ in range(repeats)]
    return torch.stack([(draw(2000) >= threshold).float().mean() for threshold in thresholds]).mean().item()


def gumbel(count: int) -> Tensor:
    """What the maximum over many cells is distributed as, on a scale of its own."""
    return 7 - 3 * torch.rand(count).clamp_min(1e-30).log().neg().log()


@pytest.mark.parametrize(
    ("count", "fpr", "most"),
    [(10, 0.02, 0.047), (30, 0.02, 0.03), (100, 0.02, 0.024), (30, 0.1, 0.12), (99, 0.1, 0.11)],
)
def test_few_maxima_keep_the_false_positive_rate_of_a_gumbel_distribution(count, fpr, most):
    """The fewer there are, the more the error of their mean and spread adds to the rate: 0.042 from ten of them."""
    torch.manual_seed(0)
    assert 0.95 * fpr < realised(gumbel, count, fpr) < most


@pytest.mark.parametrize("cells", [64, 1024])
def test_few_maxima_over_gaussian_cells_do_so_too(cells):
    """These lie between a Gaussian and a Gumbel distribution: the threshold is on the safe side."""
    torch.manual_seed(0)

    def maxima(count: int) -> Tensor:
        # the inverse of the distribution function of a maximum: no need to draw all cells
        return torch.special.ndtri(torch.rand(count, dtype=torch.float64).clamp(1e-12) ** (1 / cells)).float()

    assert 0.005 < realised(maxima, 100, 0.02) < 0.022


@pytest.mark.parametrize("draw", [torch.randn, torch.rand, gumbel], ids=["normal", "uniform", "gumbel"])
@pytest.mark.parametrize(("count", "fpr"), [(120, 0.2), (500, 0.02), (1000, 0.05)])
def test_many_normals_keep_it_whatever_their_distribution(draw, count, fpr):
    torch.manual_seed(0)
    rate = realised(draw, count, fpr)
    assert 0.9 * fpr < rate < 1.02 * fpr, rate


@pytest.mark.parametrize(("draw", "count", "fpr"), [(torch.randn, 320, 0.05), (torch.rand, 200, 0.1)], ids=["a", "b"])
def test_the_interval_holds_the_rate_of_nineteen_trainings_in_twenty(draw, count, fpr):
    low, high = fpr_interval(count, fpr)
    torch.manual_seed(0)
    inside = 0
    for _ in range(400):
        rate = (draw(20000) >= threshold_at_fpr(draw(count), fpr)).float().mean()
        inside += low <= rate <= high
    assert 0.92 < inside / 400 < 0.98


@pytest.mark.parametrize("count", [4, 30, 150])
def test_the_interval_of_few_normals_holds_for_scores_of_a_gumbel_distribution(count):
    low, high = fpr_interval(count, 0.05)
    torch.manual_seed(1)
    thresholds = [(threshold_at_fpr(gumbel(count), 0.05).item() - 7) / 3 for _ in range(400)]
    rates = [-math.expm1(-math.exp(-threshold)) for threshold in thresholds]
    assert 0.92 < sum(low <= rate <= high for rate in rates) / 400 < 0.98


def test_the_interval_narrows_with_the_normals():
    widths = [high - low for low, high in (fpr_interval(count, 0.05) for count in (5, 20, 80, 150, 320, 1000, 5000))]
    assert widths == sorted(widths, reverse=True)
    assert fpr_interval(10**5, 0.05) == pytest.approx((0.05, 0.05), abs=2e-3)


def test_from_ten_expected_false_positives_on_the_threshold_is_a_score():
    scores = torch.randn(500, generator=torch.Generator().manual_seed(0)).double()
    ranked = scores.sort().values
    # the ceil(501 * 0.98)-th smallest, and a little above it
    threshold = threshold_at_fpr(scores, 0.02)
    assert threshold == pytest.approx(ranked[490].item() + 1e-4 * scores.std().item(), abs=1e-6)
    assert (scores >= threshold).sum() == 9
    # one image fewer, and the Gumbel distribution has it
    assert threshold_at_fpr(scores[1:], 0.02) not in (scores[1:] + 1e-4 * scores[1:].std()).float()


@pytest.mark.parametrize("scores", [[0.5], [0.5] * 3, [0.5] * 300, [-2e6] * 5, [0.0]], ids=str)
def test_normals_that_are_all_alike_lie_below_the_threshold_but_only_just(scores):
    scores = torch.tensor(scores)
    threshold = threshold_at_fpr(scores, 0.05)
    assert (scores < threshold).all() or len(scores) > 200
    assert threshold == pytest.approx(scores[0].item(), rel=2e-4, abs=2e-4)


def test_the_threshold_scales_and_shifts_with_the_scores():
    scores = gumbel(40)
    threshold = threshold_at_fpr(scores, 0.02)
    torch.testing.assert_close(threshold_at_fpr(5 * scores - 3, 0.02), 5 * threshold - 3, rtol=1e-4, atol=1e-4)
    assert threshold_at_fpr(scores, 0.01) > threshold > threshold_at_fpr(scores, 0.05)
    torch.testing.assert_close(threshold_at_fpr(scores.flip(0).view(5, 8), 0.02), threshold)


def test_held_out_images_depend_on_the_seed_alone_and_small_sets_keep_all():
    assert held_out_indices(320, 0.1, seed=3) == held_out_indices(320, 0.1, seed=3)
    assert held_out_indices(320, 0.1, seed=3) != held_out_indices(320, 0.1, seed=4)
    assert len(held_out_indices(320, 0.1, seed=3)) == 32
    assert len(set(held_out_indices(10, 0.01, seed=0))) == 1
    assert held_out_indices(9, 0.1, seed=0) == []
