# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The reconstruction branches: what they give back, and where their errors show."""

import pytest
import torch

from anomalib_vmpfd.anomaly.branch import Features
from anomalib_vmpfd.models.vmpfd_ad.encoder import VimTokenEncoder
from anomalib_vmpfd.models.vmpfd_ad.reconstruction import DescriptorReconstruction, PixelReconstruction
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor

SIZE = (64, 64)


@pytest.fixture(scope="module")
def descriptor() -> PatchDescriptor:
    return PatchDescriptor("pdn_small", SIZE)


def described(targets: torch.Tensor, dim: int = 16) -> Features:
    return Features(torch.zeros(len(targets), 3, *SIZE), (targets,), targets, torch.zeros(len(targets), dim, 2, 2))


def test_descriptors_of_normals_are_reconstructed_from_their_code_and_others_are_not(descriptor):
    torch.manual_seed(0)
    branch = DescriptorReconstruction(SIZE, descriptor, VimTokenEncoder(SIZE, descriptor, dim=16, depth=0), code=4)
    basis = torch.randn(4, descriptor.channels * 4)
    normals = (torch.randn(40, 4) @ basis).view(40, descriptor.channels, 2, 2)
    branch.fit([(described(normals), torch.arange(40))])
    (known,) = branch.score(described(normals[:5]))
    assert known.shape == (5, 2, 2)
    assert known.max() < 1e-2
    (other,) = branch.score(described(torch.randn(5, descriptor.channels, 2, 2)))
    assert other.min() > 0.5


def test_the_root_mean_square_error_shows_at_the_token_it_belongs_to(descriptor):
    branch = DescriptorReconstruction(SIZE, descriptor, VimTokenEncoder(SIZE, descriptor, dim=16, depth=0))
    error = torch.zeros(1, 2, 2)
    error[0, 0, 1] = 1
    shown = branch.anomaly_map((error,))[0, 0]
    # tokens of descriptors lie where their cells lie: 22 and 38 pixels, not 15.5 and 47.5
    assert shown[22, 38] == pytest.approx(1.0, abs=1e-5)
    assert shown[38, 38] == pytest.approx(0.0, abs=1e-5)
    assert shown[30, 38] == pytest.approx(0.5, abs=1e-5)


def test_pixels_are_compared_channel_by_channel(descriptor):
    encoder = VimTokenEncoder(SIZE, descriptor, reads="pixels", dim=16, depth=0)
    branch = PixelReconstruction(SIZE, descriptor, encoder).eval()
    images = torch.rand(2, 3, *SIZE)
    target = encoder.target(images, ())
    features = Features(images, (), target, encoder(target))
    (errors,) = branch.score(features)
    expected = (2 * images - 1 - (2 * branch.panels(features)["reconstruction"] - 1)).square().mean(1)
    torch.testing.assert_close(errors, expected, rtol=1e-4, atol=1e-5)
