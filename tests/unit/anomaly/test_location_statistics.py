# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Scores standardised by what is usual at their location."""

import numpy as np
import pytest
import torch

from anomalib_vmpfd.anomaly.location_statistics import LocationStatistics
from anomalib_vmpfd.nn.grid import Axis, Grid, Resample, pixel_grid


@pytest.mark.parametrize(("images", "ratio"), [(5, 4.5), (30, 3.5), (100, 2.5)])
def test_leave_one_image_out_scores_spread_as_those_of_new_images(images, ratio):
    """With few images the spread of their own scores is that of new normals, not a flattered one."""
    torch.manual_seed(0)
    deviation = torch.ones(16, 16)
    deviation[:3] = 5  # a border of high variance
    locations = LocationStatistics((16, 16))
    to_pixels = Resample(Grid(Axis(16, 4.0, 1.5), Axis(16, 4.0, 1.5)), pixel_grid((64, 64)))
    own, new, raw = [], [], []
    for _ in range(40):
        draw = 10 + deviation * torch.randn(images + 20, 16, 16)
        own.append(to_pixels(locations.fit(draw[:images])).flatten(1).max(1).values)
        standardised = locations(draw[images:])
        new.append(to_pixels(standardised).flatten(1).max(1).values)
        raw.append((standardised[:, :3].std() / standardised[:, 3:].std()).item())
    assert torch.cat(own).mean().item() == pytest.approx(torch.cat(new).mean().item(), rel=0.1)
    assert np.mean(raw) < ratio  # the more images, the less the border decides: 5 without statistics


def test_a_single_image_is_standardised_by_itself_and_all_stays_finite():
    locations = LocationStatistics((4, 4))
    image = torch.rand(1, 4, 4)
    torch.testing.assert_close(locations.fit(image), locations(image))
    assert locations.fit(torch.zeros(3, 4, 4)).isfinite().all()


def test_leave_one_out_scores_are_those_by_the_statistics_of_the_others():
    torch.manual_seed(0)
    scores, others = torch.randn(6, 3, 3), LocationStatistics((3, 3))
    left_out = LocationStatistics((3, 3)).fit(scores)
    for index in range(6):
        others.fit(torch.cat([scores[:index], scores[index + 1 :]]))
        torch.testing.assert_close(left_out[index], others(scores[index : index + 1])[0])
