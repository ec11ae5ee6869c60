# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Held-out split and thresholds."""

import pytest
import torch

from anomalib_vmpfd.engine.calibration import held_out_indices, threshold_at_fpr

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize(("count", "fpr"), [(1200, 0.01), (400, 0.05), (120, 0.2), (120, 0.02), (60, 0.1)])
def test_threshold_keeps_its_false_positive_rate_on_new_normals(count, fpr):
    """Scores that are maxima over many cells, as those of images; few images and many."""
    torch.manual_seed(0)
    rates = []
    for _ in range(200):
        scores = torch.randn(count + 300, 256).amax(1)
        threshold = threshold_at_fpr(scores[:count], fpr)
        rates.append((scores[count:] >= threshold).float().mean())
    assert torch.stack(rates).mean() <= fpr * 1.1
    assert torch.stack(rates).mean() >= fpr * 0.5


def test_threshold_lies_above_all_normals_when_there_are_too_few_of_them():
    scores = torch.tensor([0.1, 0.5, 0.3])
    assert not (scores >= threshold_at_fpr(scores, 0.01)).any()
    alike = torch.full((5,), 0.3)
    assert not (alike >= threshold_at_fpr(alike, 0.01)).any()


def test_held_out_images_depend_on_the_seed_alone_and_small_sets_keep_all():
    assert held_out_indices(320, 0.1, seed=3) == held_out_indices(320, 0.1, seed=3)
    assert held_out_indices(320, 0.1, seed=3) != held_out_indices(320, 0.1, seed=4)
    assert len(held_out_indices(320, 0.1, seed=3)) == 32
    assert len(set(held_out_indices(10, 0.01, seed=0))) == 1
    assert held_out_indices(9, 0.1, seed=0) == []
