# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Cells lie where the network sees them."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.components.cell_geometry import (
    CellGeometry,
    interpolation_matrix,
    pooling_matrix,
    resampling_matrix,
)
from anomalib_vmpfd.components.patch_descriptor import PatchDescriptor


def test_interpolation_agrees_with_torch_on_edge_to_edge_cells():
    values = torch.randn(1, 1, 8, 8)
    matrix = interpolation_matrix(8, CellGeometry(4.0, 1.5), 32)
    expected = F.interpolate(values, (32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(matrix @ values @ matrix.T, expected, atol=1e-6, rtol=1e-6)


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


@pytest.mark.parametrize(
    ("name", "layers"),
    [("pdn_small", None), ("timm/tf_efficientnet_lite2", ["blocks.2"]), ("timm/tf_efficientnet_lite2", ["blocks.1"])],
)
def test_the_pixels_that_a_cell_sees_are_centred_on_its_place(name, layers):
    """The support of the gradient of one cell, found by autograd, is symmetric about the cell's centre."""
    torch.manual_seed(0)
    descriptor = PatchDescriptor(name, (256, 256), layers)
    images = torch.rand(1, 3, 256, 256, requires_grad=True)
    row, column = descriptor.grid[0] // 2, descriptor.grid[1] // 2
    maps = descriptor._maps(images)[0] if not layers else _differentiable(descriptor, images)
    maps[0, :, row, column].sum().backward()
    support = images.grad.abs().sum((0, 1)) > 0
    for axis, cell in ((1, row), (0, column)):
        pixels = support.any(axis).nonzero()
        centre = (pixels.min() + pixels.max()).item() / 2
        expected = descriptor.geometry.first + cell * descriptor.geometry.stride
        # an even receptive field has its centre between two pixels; inverted units may hide one border pixel
        assert centre == pytest.approx(expected, abs=1.5)


def _differentiable(descriptor: PatchDescriptor, images: torch.Tensor) -> torch.Tensor:
    network = descriptor.network.feature_extractor
    return network((images - 0.5) / 0.5)[0]
