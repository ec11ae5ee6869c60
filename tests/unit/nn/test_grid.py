# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Cells lie where the network sees them."""

import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.nn.grid import (
    CellGeometry,
    gaussian_matrix,
    interpolation_matrix,
    pooling_matrix,
    resampling_matrix,
)
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor

pytestmark = pytest.mark.numeric


def test_interpolation_agrees_with_torch_on_edge_to_edge_cells():
    values = torch.randn(1, 1, 8, 8)
    matrix = interpolation_matrix(8, CellGeometry(4.0, 1.5), 32)
    expected = F.interpolate(values, (32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(matrix @ values @ matrix.T, expected, atol=1e-6, rtol=1e-6)


def test_smoothing_by_matrices_is_the_gaussian_filter_of_scipy():
    values = torch.rand(60, 80)
    smoothed = gaussian_matrix(60, 4.0) @ values @ gaussian_matrix(80, 4.0).T
    expected = torch.from_numpy(ndimage.gaussian_filter(values.numpy(), 4.0, truncate=8.0))
    inside = (slice(16, -16), slice(16, -16))
    torch.testing.assert_close(smoothed[inside], expected[inside], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gaussian_matrix(9, 2.0).sum(1), torch.ones(9))


@pytest.mark.parametrize(("cells", "pooled"), [(56, 28), (56, 8), (56, 32), (7, 7)])
def test_pooling_keeps_the_mean_and_averages_whole_cells(cells, pooled):
    values = torch.randn(cells)
    matrix = pooling_matrix(cells, pooled)
    torch.testing.assert_close((matrix @ values).mean(), values.mean(), atol=1e-6, rtol=1e-5)
    if cells % pooled == 0:
        torch.testing.assert_close(matrix @ values, values.view(pooled, -1).mean(1))


def test_a_ramp_of_pixels_stays_a_ramp_on_every_grid():
    """A cell's value on the ramp f(p) = p is its own centre; resampling must keep that inside the image."""
    source, target = CellGeometry(16.0, 15.0), CellGeometry(8.0, 7.0)
    ramp = torch.arange(16) * 16.0 + 15.0
    resampled = resampling_matrix(16, source, 32, target) @ ramp
    centres = torch.arange(32) * 8.0 + 7.0
    inside = (centres >= 15) & (centres <= ramp[-1])
    torch.testing.assert_close(resampled[inside], centres[inside])


def test_the_pixels_that_a_cell_of_the_pdn_sees_are_centred_on_its_place():
    """The support of the gradient of one cell, found by autograd, is symmetric about the cell's centre."""
    torch.manual_seed(0)
    descriptor = PatchDescriptor("pdn_small", (256, 256))
    images = torch.rand(1, 3, 256, 256, requires_grad=True)
    descriptor._maps(images)[0][0, :, 28, 28].sum().backward()
    support = images.grad.abs().sum((0, 1)) > 0
    for axis in (0, 1):
        pixels = support.any(axis).nonzero()
        centre = (pixels.min() + pixels.max()).item() / 2
        # an even receptive field has its centre between two pixels; inverted units may hide one border pixel
        assert centre == pytest.approx(descriptor.geometry.first + 28 * descriptor.geometry.stride, abs=1.5)


@pytest.mark.parametrize("layer", ["blocks.1", "blocks.2", "blocks.4"])
def test_a_cell_of_the_bundled_backbone_lies_where_its_weights_look(layer):
    """The centre of mass of the squared gradient of one cell, on pictures of blurred noise."""
    torch.manual_seed(0)
    descriptor = PatchDescriptor("timm/tf_efficientnet_lite2", (256, 256), [layer])
    descriptor.load_weights("bundled")
    cell = descriptor.grid[0] // 2
    images = F.interpolate(torch.rand(8, 3, 64, 64), (256, 256), mode="bicubic").clamp(0, 1).requires_grad_()
    seen = descriptor.network.feature_extractor((images - 0.5) / 0.5)[0][:, :, cell, cell]
    energy = torch.zeros(256, 256)
    for _ in range(4):
        (gradient,) = torch.autograd.grad((seen * torch.randn_like(seen)).sum(), images, retain_graph=True)
        energy += gradient.square().sum((0, 1))
    expected = descriptor.geometry.first + cell * descriptor.geometry.stride
    for axis in (0, 1):
        mass = energy.sum(axis)
        assert ((mass * torch.arange(256)).sum() / mass.sum()).item() == pytest.approx(expected, abs=1.5)
