# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Held-out split and thresholds."""

import pytest
import torch

from anomalib_vmpfd.engine.calibration import held_out_indices, threshold_at_fpr

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.2])
def test_threshold_keeps_its_false_positive_rate_on_new_normals(fpr):
    torch.manual_seed(0)
    rates = []
    for _ in range(300):
        scores = torch.randn(120)
        threshold = threshold_at_fpr(scores, fpr)
        rates.append((torch.randn(500) >= threshold).float().mean())
    assert torch.stack(rates).mean() <= fpr * 1.1
    assert torch.stack(rates).mean() >= fpr * 0.5


def test_threshold_lies_above_all_normals_when_there_are_too_few_of_them():
    scores = torch.tensor([0.1, 0.5, 0.3])
    threshold = threshold_at_fpr(scores, 0.01)
    assert not (scores >= threshold).any()
    assert threshold == pytest.approx(0.5, abs=1e-6)


def test_held_out_images_depend_on_the_seed_alone_and_small_sets_keep_all():
    assert held_out_indices(320, 0.1, seed=3) == held_out_indices(320, 0.1, seed=3)
    assert held_out_indices(320, 0.1, seed=3) != held_out_indices(320, 0.1, seed=4)
    assert len(held_out_indices(320, 0.1, seed=3)) == 32
    assert len(set(held_out_indices(10, 0.01, seed=0))) == 1
    assert held_out_indices(9, 0.1, seed=0) == []
