# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Principal components of whole images: what they reconstruct, and scores of images that were learnt."""

import pytest
import torch
from described import Described, features

from anomalib_vmpfd.models.vmpfd_ad.component_reconstruction import ComponentReconstruction
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor


@pytest.fixture(scope="module")
def descriptor() -> PatchDescriptor:
    return PatchDescriptor("pdn_small", (64, 64))


def normals(descriptor: PatchDescriptor, count: int) -> torch.Tensor:
    """Images of three degrees of freedom."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(3, descriptor.channels * 64, generator=generator)
    return (torch.randn(count, 3, generator=generator) @ basis).view(count, descriptor.channels, 8, 8)


def test_normals_are_reconstructed_and_a_displaced_part_is_not(descriptor):
    branch, images = ComponentReconstruction((64, 64), descriptor, code=3), normals(descriptor, 30)
    branch.fit(Described(images))
    changed = images[:2].clone()
    changed[1, :, 4:6, 2:4] = images[0, :, 0:2, 0:2]
    fine, coarse = branch.score(features(changed))
    assert (fine.shape, coarse.shape) == ((2, 4, 4), (2, 2, 2))
    assert fine[0].max() < 1e-2
    assert divmod(fine[1].flatten().argmax().item(), 4) == (2, 1)
    assert divmod(coarse[1].flatten().argmax().item(), 2) == (1, 0)


def test_scores_left_out_are_those_of_new_images(descriptor):
    """Images of noise: a code of half as many components as images knows them better than new ones."""
    torch.manual_seed(0)
    images = torch.randn(40, descriptor.channels, 8, 8)
    branch = ComponentReconstruction((64, 64), descriptor, code=20)
    branch.fit(Described(images))
    own = branch.score(features(images))[0].mean()
    left_out = branch.score_left_out(Described(images))[0].mean()
    new = branch.score(features(torch.randn(40, descriptor.channels, 8, 8)))[0].mean()
    assert left_out.item() == pytest.approx(new.item(), rel=0.05)
    assert own < 0.9 * new


def test_a_side_that_does_not_fit_is_named(descriptor):
    with pytest.raises(ValueError, match=r"sides=\(2, 9\) must be numbers of cells from 1 to the 8 of the grid"):
        ComponentReconstruction((64, 64), descriptor, sides=(2, 9))
