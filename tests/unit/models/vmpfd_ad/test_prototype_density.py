# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Prototypes at several scales: what they learn, and where an anomalous cell shows."""

import pytest
import torch
from described import Described, features

from anomalib_vmpfd.models.vmpfd_ad.prototype_density import PrototypeDensity
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor


@pytest.fixture(scope="module")
def descriptor() -> PatchDescriptor:
    return PatchDescriptor("pdn_small", (64, 64))


def density(descriptor: PatchDescriptor, size: int = 64, **scale) -> PrototypeDensity:
    return PrototypeDensity(
        (size, size), descriptor, scales=[{"level": 0, "num_components": 16} | scale], smoothing=0.0
    )


@pytest.mark.parametrize(
    ("side", "cell", "pixel"),
    [
        (1, (10, 40), (16 + 4 * 10, 16 + 4 * 40)),  # it sees the pixels 40..72 and 160..192
        (2, (10, 20), (16 + 4 * 20 + 2, 16 + 4 * 40 + 2)),  # four cells lie in their middle
    ],
)
def test_an_anomalous_cell_shows_at_the_pixels_that_it_saw(side, cell, pixel):
    branch = density(PatchDescriptor("pdn_small", (256, 256)), 256, side=side)
    scores = torch.zeros(1, 56 // side, 56 // side)
    scores[(0, *cell)] = 1
    assert divmod(branch.anomaly_map((scores,))[0, 0].flatten().argmax().item(), 256) == pixel


def test_prototypes_do_not_depend_on_the_batches(descriptor):
    normals = torch.randn(9, descriptor.channels, 8, 8)
    means = []
    for batch in (1, 4, 9):
        torch.manual_seed(0)
        branch = PrototypeDensity((64, 64), descriptor, num_components=16)
        branch.fit(Described(normals, batch=batch))
        means.append([prototypes.means for prototypes in branch.prototypes])
    assert len(means[0]) == 2, "cells and squares of 2 x 2"
    for other in means[1:]:
        torch.testing.assert_close(other, means[0], rtol=0, atol=0)


def test_scores_left_out_are_by_the_prototypes_of_other_images(descriptor):
    torch.manual_seed(0)
    normals = Described(torch.randn(6, descriptor.channels, 8, 8))
    branch = density(descriptor, num_components=300)
    branch.fit(normals)
    (left_out,) = branch.score_left_out(normals)
    (own,) = branch.score(features(normals.descriptors))
    assert left_out.shape == own.shape == (6, 8, 8)
    assert (left_out >= own - 1e-4).all()
    # most cells are prototypes themselves, at no distance from their own image
    assert left_out.mean() > own.mean() + 0.1


def test_a_finer_level_is_part_of_the_map_alone():
    descriptor = PatchDescriptor("timm/tf_efficientnet_lite2", (64, 64))
    branch = PrototypeDensity((64, 64), descriptor, num_components=8)
    assert [each.in_image_score for each in branch.maps].count(True) == 2
    assert len(branch.scales) == (3 if len(descriptor.levels) > 1 else 2)
    assert [scale.num_components for scale in branch.scales][-2:] == [8, 8]


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ({"level": 1}, "level must be below 1"),
        ({"side": 9}, "does not fit a grid of 8 x 8 cells"),
        ({"side": 0}, "side and num_components at least 1"),
        ({"cells": 3}, "has the fields level, side, num_components"),
        ({"in_image_score": False}, "None of density_args.scales is in_image_score"),
    ],
)
def test_a_scale_that_does_not_fit_is_named(descriptor, scale, message):
    with pytest.raises(ValueError, match=message):
        density(descriptor, **scale)
