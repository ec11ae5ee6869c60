# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Where the cells of a feature map lie in the image, and how values move from one grid of cells to another."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Axis(NamedTuple):
    """Cells along one axis of a feature map.

    Attributes:
        cells (int): Number of cells.
        stride (float): Distance of neighbouring cells in pixels of the input.
        first (float): Centre of the first cell in pixels of the input; the centre of the first pixel is at 0.
    """

    cells: int
    stride: float
    first: float

    def pooled(self, cells: int, ratio: float | None = None) -> "Axis":
        """Axis after ``ratio`` neighbouring cells became one; by default all cells are shared out evenly."""
        ratio = self.cells / cells if ratio is None else ratio
        return Axis(cells, self.stride * ratio, self.first + self.stride * (ratio - 1) / 2)

    def nearest(self, pixels: Tensor) -> Tensor:
        """Numbers of the cells that are nearest to pixels of the input, both counted from 0."""
        return ((pixels - self.first) / self.stride).round().long().clamp(0, self.cells - 1)


class Grid(NamedTuple):
    """Cells of a feature map, each axis with a stride and a first centre of its own.

    Example:
        >>> pixel_grid((256, 128)).pooled((8, 4)).rows
        Axis(cells=8, stride=32.0, first=15.5)
    """

    rows: Axis
    columns: Axis

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells ``(h, w)``."""
        return self.rows.cells, self.columns.cells

    def pooled(self, shape: tuple[int, int], ratio: float | None = None) -> "Grid":
        """Grid of ``shape`` cells, each the mean of ``ratio`` x ``ratio`` cells of this one; all of them by default."""
        return Grid(self.rows.pooled(shape[0], ratio), self.columns.pooled(shape[1], ratio))

    def covering(self, region: Tensor) -> Tensor:
        """Cells ``(h, w)`` that are nearest to any pixel of a region of the input ``(H, W)``, both boolean."""
        cells = torch.zeros(self.shape, dtype=torch.bool, device=region.device)
        line, column = region.nonzero(as_tuple=True)
        cells[self.rows.nearest(line), self.columns.nearest(column)] = True
        return cells


def pixel_grid(image_size: tuple[int, int]) -> Grid:
    """Every pixel a cell."""
    return Grid(Axis(image_size[0], 1.0, 0.0), Axis(image_size[1], 1.0, 0.0))


class Resample(nn.Module):
    """Move maps from one grid to another, axis by axis: averaged to its stride first if finer, then interpolated.

    Args:
        source (Grid): Where the values lie.
        target (Grid): Where they are wanted.
        sigma (float): Standard deviation of a Gaussian that smooths the result, in cells of the target; 0 for none.
    """

    rows: Tensor | None
    columns: Tensor | None

    def __init__(self, source: Grid, target: Grid, sigma: float = 0.0) -> None:
        super().__init__()
        self.cells = target.shape[0] * target.shape[1]
        for name, there, here in zip(("rows", "columns"), source, target, strict=True):
            # interpolation and smoothing are linear: one product does both
            matrix = gaussian_matrix(here.cells, sigma) @ resampling_matrix(there, here)
            identity = torch.equal(matrix, torch.eye(*matrix.shape))
            self.register_buffer(name, None if identity else matrix, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Resample maps ``(..., h, w)`` to ``(..., H, W)``."""
        return resample(values, self.rows, self.columns)


def resampling_matrix(source: Axis, target: Axis) -> Tensor:
    """Bring cells to another grid along one axis: averaged to its stride first if finer, then interpolated.

    Args:
        source (Axis): Where the values lie.
        target (Axis): Where they are wanted.

    Returns:
        Tensor: Matrix of shape ``(target.cells, source.cells)`` whose rows sum to one.
    """
    pooled = max(1, round(source.cells * min(1.0, source.stride / target.stride)))
    return interpolation_matrix(source.pooled(pooled), target) @ pooling_matrix(source.cells, pooled)


def interpolation_matrix(source: Axis, target: Axis) -> Tensor:
    """Linear interpolation along one axis; the outermost cells extend to the border.

    Args:
        source (Axis): Where the values lie.
        target (Axis): Where they are wanted.

    Returns:
        Tensor: Matrix of shape ``(target.cells, source.cells)`` whose rows sum to one.
    """
    points = torch.arange(target.cells, dtype=torch.float64) * target.stride + target.first
    position = ((points - source.first) / source.stride).clamp(0, source.cells - 1)
    return (1 - (position[:, None] - torch.arange(source.cells)).abs()).clamp_min(0).float()


def pooling_matrix(cells: int, pooled: int) -> Tensor:
    """Average ``cells`` neighbouring cells to ``pooled`` ones along one axis, cells on an edge taking part in both.

    Args:
        cells (int): Number of cells.
        pooled (int): Number of cells afterwards, at most ``cells``.

    Returns:
        Tensor: Matrix of shape ``(pooled, cells)`` whose rows sum to one.
    """
    ratio = cells / pooled
    start = torch.arange(pooled, dtype=torch.float64)[:, None] * ratio
    cell = torch.arange(cells, dtype=torch.float64)
    overlap = torch.minimum(start + ratio, cell + 1) - torch.maximum(start, cell)
    return (overlap.clamp_min(0) / ratio).float()


def gaussian_matrix(points: int, sigma: float) -> Tensor:
    """Gaussian smoothing along one axis; at the border only what is there takes part.

    Args:
        points (int): Number of points.
        sigma (float): Standard deviation in points; 0 changes nothing.

    Returns:
        Tensor: Matrix of shape ``(points, points)`` whose rows sum to one.
    """
    if sigma <= 0:
        return torch.eye(points)
    position = torch.arange(points, dtype=torch.float64)
    weight = (-0.5 * ((position[:, None] - position) / sigma).square()).exp()
    return (weight / weight.sum(1, keepdim=True)).float()


def resample(values: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """Bring maps to another grid, ``rows @ values @ columns.T``, in float32 at least.

    Autocast takes no part: a map that is smoothed and upsampled in bfloat16 comes out in a few steps.

    Args:
        values (Tensor): Maps of shape ``(..., h, w)``.
        rows (Tensor | None): Matrix ``(H, h)``; ``None`` for the identity.
        columns (Tensor | None): Matrix ``(W, w)``; ``None`` for the identity.

    Returns:
        Tensor: Maps of shape ``(..., H, W)``.
    """
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    # asked first, so that an exported graph has no region without autocast, which no runtime knows
    if torch.is_autocast_enabled(values.device.type):
        with torch.autocast(values.device.type, enabled=False):
            return _product(values, rows, columns)
    return _product(values, rows, columns)


def _product(values: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    if columns is not None:
        values = values @ columns.to(values).T
    if rows is not None:
        # on the left: a transposed first factor is what OpenVINO rewrites, and then rounds where it has bfloat16
        values = rows.to(values) @ values
    return values
