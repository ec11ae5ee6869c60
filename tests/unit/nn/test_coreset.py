# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The greedy coreset beside anomalib's."""

import torch
from anomalib.models.components import KCenterGreedy
from scipy.spatial.distance import cdist

from anomalib_vmpfd.nn.coreset import farthest_points


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
