# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""How the maps of a branch become one map and one score."""

import pytest
import torch
from torch import nn

from anomalib_vmpfd.anomaly.branch import Branch
from anomalib_vmpfd.anomaly.raw_map import RawMap
from anomalib_vmpfd.nn.grid import pixel_grid

SIZE = (16, 16)


class Two(Branch):
    """Two maps, of which the second is not part of the image score."""

    def __init__(self) -> None:
        super().__init__()
        grid = pixel_grid(SIZE).pooled((4, 4))
        self.maps = nn.ModuleList([RawMap(grid, SIZE, 2.0), RawMap(grid, SIZE, 1.0, in_image_score=False)])


def test_the_map_is_the_weighted_mean():
    branch = Two()
    shown = branch.anomaly_map((torch.full((3, 4, 4), 6.0), torch.full((3, 4, 4), 3.0)))
    torch.testing.assert_close(shown, torch.full((3, 1, 16, 16), 5.0))


def test_the_image_score_is_the_sum_of_the_maxima_that_are_part_of_it():
    branch, normals = Two(), torch.rand(20, 4, 4, generator=torch.Generator().manual_seed(0))
    left_out = branch.calibrate((normals, normals), (0.9, 0.995))
    assert left_out.shape == (20,)
    new = torch.full((1, 4, 4), 0.5)
    spot = new.clone()
    spot[0, 1, 1] = 5.0
    assert branch.image_score((spot, new)) > branch.image_score((new, new))
    assert branch.image_score((new, spot)) == branch.image_score((new, new))


def test_by_default_a_branch_learns_nothing_and_shows_nothing_more():
    branch = Branch()
    assert branch.fit([]) is None
    assert branch.loss(None) == branch.panels(None) == {}
    for method in (branch.score, branch.score_left_out):
        with pytest.raises(NotImplementedError):
            method(None)
