# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Cells lie where the network sees them, and values arrive where they belong."""

import onnxruntime
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.models.vmpfd_ad.encoder import VimTokenEncoder
from anomalib_vmpfd.nn.grid import (
    Axis,
    Grid,
    Resample,
    gaussian_matrix,
    interpolation_matrix,
    pixel_grid,
    pooling_matrix,
    resampling_matrix,
)
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor

pytestmark = pytest.mark.numeric


def centres(axis: Axis) -> torch.Tensor:
    return axis.first + axis.stride * torch.arange(axis.cells)


def test_interpolation_agrees_with_torch_on_edge_to_edge_cells():
    values = torch.randn(1, 1, 8, 8)
    matrix = interpolation_matrix(Axis(8, 4.0, 1.5), Axis(32, 1.0, 0.0))
    expected = F.interpolate(values, (32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(matrix @ values @ matrix.T, expected, atol=1e-6, rtol=1e-6)


def test_resample_is_the_interpolation_of_torch_with_another_stride_on_each_axis():
    values = torch.randn(2, 3, 8, 5)
    resample = Resample(pixel_grid((64, 20)).pooled((8, 5)), pixel_grid((64, 20)))
    expected = F.interpolate(values, (64, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resample(values), expected, atol=1e-6, rtol=1e-6)


def test_resample_to_fewer_cells_is_the_average_pooling_of_torch():
    values = torch.randn(2, 3, 56, 24)
    resample = Resample(Grid(Axis(56, 4.0, 16.0), Axis(24, 4.0, 16.0)), Grid(Axis(8, 28.0, 28.0), Axis(8, 12.0, 20.0)))
    torch.testing.assert_close(resample(values), F.adaptive_avg_pool2d(values, (8, 8)), atol=1e-6, rtol=1e-5)


def test_resample_smooths_as_the_gaussian_filter_of_scipy():
    values = torch.rand(60, 80)
    expected = torch.from_numpy(ndimage.gaussian_filter(values.numpy(), 4.0, truncate=8.0))
    smoothed = Resample(pixel_grid((60, 80)), pixel_grid((60, 80)), sigma=4.0)(values)
    inside = (slice(16, -16), slice(16, -16))
    torch.testing.assert_close(smoothed[inside], expected[inside], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gaussian_matrix(9, 2.0).sum(1), torch.ones(9))


def test_resample_between_equal_grids_costs_nothing_and_leaves_no_trace_in_a_checkpoint():
    same = Resample(pixel_grid((6, 7)), pixel_grid((6, 7)))
    assert same.rows is same.columns is None
    values = torch.rand(2, 6, 7)
    assert same(values) is values
    assert not Resample(pixel_grid((6, 7)), pixel_grid((6, 7)).pooled((3, 7))).state_dict()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sigma", [0.0, 4.0])
def test_autocast_takes_no_part_in_a_map(dtype, sigma):
    values = 100 + torch.rand(2, 1, 8, 5)  # their range is a fraction of their size, which has three digits in bfloat16
    resample = Resample(pixel_grid((64, 20)).pooled((8, 5)), pixel_grid((64, 20)), sigma)
    expected = resample(values)
    with torch.autocast("cpu", dtype):
        seen = resample(values)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-5 * (expected.amax() - expected.amin()).item())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_maps_of_any_precision_are_resampled_in_float32_at_least(dtype):
    resample = Resample(pixel_grid((64, 20)).pooled((8, 5)), pixel_grid((64, 20)), 2.0).to(dtype)
    values = torch.rand(2, 8, 5, dtype=dtype)
    assert resample(values).dtype == torch.promote_types(dtype, torch.float32)
    expected = Resample(pixel_grid((64, 20)).pooled((8, 5)), pixel_grid((64, 20)), 2.0)(values.float())
    torch.testing.assert_close(resample(values).float(), expected, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("autocast", [False, True])
def test_resample_is_exported_as_plain_products(autocast, tmp_path):
    resample = Resample(pixel_grid((64, 20)).pooled((8, 5)), pixel_grid((64, 20)), 2.0)
    values, other = torch.rand(2, 1, 8, 5), torch.rand(3, 1, 8, 5)
    batch = {0: torch.export.Dim("batch")}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        program = torch.export.export(resample, (values,), dynamic_shapes=(batch,))
    torch.testing.assert_close(program.module()(other), resample(other), rtol=1e-6, atol=1e-6)
    if not autocast:
        assert "autocast" not in str(program.graph)
        torch.onnx.export(program, f=str(tmp_path / "resample.onnx"), verbose=False)
        session = onnxruntime.InferenceSession(tmp_path / "resample.onnx")
        (seen,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
        torch.testing.assert_close(torch.from_numpy(seen), resample(other), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("cells", "pooled"), [(56, 28), (56, 8), (56, 32), (7, 7)])
def test_pooling_keeps_the_mean_and_averages_whole_cells(cells, pooled):
    values = torch.randn(cells)
    matrix = pooling_matrix(cells, pooled)
    torch.testing.assert_close((matrix @ values).mean(), values.mean(), atol=1e-6, rtol=1e-5)
    if cells % pooled == 0:
        torch.testing.assert_close(matrix @ values, values.view(pooled, -1).mean(1))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (Axis(16, 16.0, 15.0), Axis(32, 8.0, 7.0)),
        (Axis(8, 32.0, 15.5), Axis(8, 28.0, 28.0)),
        (Axis(64, 4.0, 2.5), Axis(16, 16.0, 8.5)),
        (Axis(56, 4.0, 16.0), Axis(8, 32.0, 15.5)),
    ],
)
def test_a_ramp_of_pixels_stays_a_ramp_on_every_grid(source, target):
    """A cell's value on the ramp f(p) = p is its own centre; resampling must keep that between the outermost cells."""
    seen = resampling_matrix(source, target) @ centres(source)
    pooled = source.pooled(max(1, round(source.cells * min(1.0, source.stride / target.stride))))
    inside = (centres(target) >= pooled.first) & (centres(target) <= centres(pooled)[-1])
    assert inside.sum() > target.cells // 2
    torch.testing.assert_close(seen[inside], centres(target)[inside], atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize(("count", "ratio"), [(8, None), (5, None), (28, 2.0), (18, 3.0)])
def test_a_pooled_axis_lies_at_the_mean_of_what_it_pools(count, ratio):
    axis = Axis(56, 4.0, 16.0)
    ratio = 56 / count if ratio is None else ratio
    means = centres(axis)[: int(ratio)].mean() if ratio == int(ratio) else 16 + 4 * (ratio - 1) / 2
    pooled = axis.pooled(count, None if ratio == 56 / count else ratio)
    assert pooled == pytest.approx((count, 4.0 * ratio, float(means)))


def test_each_axis_of_a_tall_image_has_a_stride_of_its_own():
    """A PDN gives 96 x 32 cells of 416 x 160 pixels; 13 x 5 tokens are unequal parts of them on both axes."""
    image_size = (416, 160)
    descriptor = PatchDescriptor("pdn_small", image_size)
    assert descriptor.grid == Grid(Axis(96, 4, 16.0), Axis(32, 4, 16.0))
    encoder = VimTokenEncoder(image_size, descriptor, dim=16, depth=0)
    assert encoder.grid.shape == (13, 5)
    # what a token of the coordinates is, is where it lies
    rows, columns = (centres(axis) for axis in descriptor.grid)
    coordinates = torch.stack([rows[:, None].expand(96, 32), columns.expand(96, 32)])[None]
    y, x = encoder.target(torch.zeros(1, 3, *image_size), (coordinates,))[0]
    # the bins of adaptive pooling overlap by a cell at most, half of which moves the centre
    torch.testing.assert_close(y[:, 0], centres(encoder.grid.rows), atol=2.0, rtol=0)
    torch.testing.assert_close(x[0], centres(encoder.grid.columns), atol=2.0, rtol=0)
    assert centres(encoder.grid.columns)[-1] == pytest.approx(129.2)
    assert encoder.grid.rows.stride != encoder.grid.columns.stride


def test_pixels_of_tokens_are_centred_on_their_patch_up_to_the_last_column():
    descriptor = PatchDescriptor("pdn_small", (416, 160))
    grid = VimTokenEncoder((416, 160), descriptor, reads="pixels", dim=16, depth=0).grid
    assert grid == Grid(Axis(13, 32.0, 15.5), Axis(5, 32.0, 15.5))
    assert centres(grid.columns)[-1] == (128 + 159) / 2


def test_the_pixels_that_a_cell_of_the_pdn_sees_are_centred_on_it():
    """The support of the gradient of one cell, found by autograd, is symmetric about the cell's centre."""
    torch.manual_seed(0)
    descriptor = PatchDescriptor("pdn_small", (256, 256))
    images = torch.rand(1, 3, 256, 256, requires_grad=True)
    descriptor._outputs(images)[0][0, :, 28, 28].sum().backward()
    support = images.grad.abs().sum((0, 1)) > 0
    for axis, along in enumerate(descriptor.grid):
        pixels = support.any(1 - axis).nonzero()
        centre = (pixels.min() + pixels.max()).item() / 2
        # an even receptive field has its centre between two pixels; inverted units may hide one border pixel
        assert centre == pytest.approx(centres(along)[28].item(), abs=1.5)


@pytest.mark.parametrize("layer", ["blocks.1", "blocks.2", "blocks.4"])
def test_a_cell_of_the_bundled_backbone_lies_at_its_effective_receptive_field(layer):
    """The centre of mass of the squared gradient of one cell, on pictures of blurred noise."""
    torch.manual_seed(0)
    descriptor = PatchDescriptor("timm/tf_efficientnet_lite2", (256, 256), [layer])
    descriptor.load_weights()
    cell = descriptor.grid.shape[0] // 2
    images = F.interpolate(torch.rand(8, 3, 64, 64), (256, 256), mode="bicubic").clamp(0, 1).requires_grad_()
    seen = descriptor.network.feature_extractor((images - 0.5) / 0.5)[0][:, :, cell, cell]
    energy = torch.zeros(256, 256)
    for _ in range(4):
        (gradient,) = torch.autograd.grad((seen * torch.randn_like(seen)).sum(), images, retain_graph=True)
        energy += gradient.square().sum((0, 1))
    for axis, along in enumerate(descriptor.grid):
        mass = energy.sum(1 - axis)
        seen_at = ((mass * torch.arange(256)).sum() / mass.sum()).item()
        assert seen_at == pytest.approx(centres(along)[cell].item(), abs=1.5)


def test_stages_of_a_backbone_are_stacked_where_they_lie():
    """A ramp over the coarse stage arrives in the grid of the fine one as the ramp at its cells."""
    descriptor = PatchDescriptor("timm/tf_efficientnet_lite2", (256, 128))
    finest, fine, coarse = Axis(32, 4.0, 2.5), Axis(16, 8.0, 3.5), Axis(8, 16.0, 10.0)
    assert [level.grid for level in descriptor.levels] == [
        Grid(Axis(64, 4.0, 2.5), finest),
        Grid(Axis(32, 8.0, 3.5), fine),
    ]
    assert descriptor.grid == descriptor.levels[-1].grid
    for level, source, target in zip(descriptor.levels, (fine, coarse), (finest, fine), strict=True):
        ramp = centres(source).expand(1, 1, 2 * source.cells, source.cells)
        seen = level.resample[1](ramp)[0, 0, 4]
        torch.testing.assert_close(seen[1:-1], centres(target)[1:-1])
