# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What the encoders read, and the shape of what they give."""

import pytest
import torch

from anomalib_vmpfd.models.vmpfd_ad.encoder import CnnTokenEncoder, VimTokenEncoder
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor

SIZE = (96, 64)


@pytest.fixture(scope="module")
def descriptor() -> PatchDescriptor:
    return PatchDescriptor("pdn_small", SIZE)


@pytest.mark.parametrize("encoder_class", [VimTokenEncoder, CnnTokenEncoder])
@pytest.mark.parametrize("reads", ["descriptors", "pixels"])
def test_a_token_for_each_patch(encoder_class, reads, descriptor):
    encoder = encoder_class(SIZE, descriptor, reads=reads, dim=16).eval()
    images = torch.rand(2, 3, *SIZE)
    target = encoder.target(images, descriptor(images))
    assert encoder.grid.shape == (3, 2)
    assert encoder(target).shape == (2, 16, 3, 2)


def test_pixels_have_the_range_of_tanh_and_descriptors_are_averaged(descriptor):
    images = torch.rand(2, 3, *SIZE)
    pixels = VimTokenEncoder(SIZE, descriptor, reads="pixels", dim=16, depth=0).target(images, None)
    torch.testing.assert_close(pixels, 2 * images - 1)
    described = torch.randn(2, descriptor.channels, *descriptor.grid.shape)
    tokens = VimTokenEncoder(SIZE, descriptor, dim=16, depth=0).target(None, (described,))
    torch.testing.assert_close(tokens.mean((2, 3)), described[:, :, :15].mean((2, 3)), atol=0.2, rtol=0)
    constant = torch.full_like(described, 2.5)
    assert (VimTokenEncoder(SIZE, descriptor, dim=16, depth=0).target(None, (constant,)) == 2.5).all()


def test_what_cannot_be_read_is_named(descriptor):
    with pytest.raises(ValueError, match="Unknown reads='edges' in encoder_args; choose 'descriptors' or 'pixels'"):
        VimTokenEncoder(SIZE, descriptor, reads="edges")
    with pytest.raises(ValueError, match="96x64 is not a multiple of the patch size 40; use 80x80"):
        CnnTokenEncoder(SIZE, descriptor, patch_size=40)
