# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Where the cells of a feature map lie in the image, and how values move from one set of cells to another."""

from typing import NamedTuple

import torch
from torch import Tensor


class CellGeometry(NamedTuple):
    """Cells along one axis of a feature map; both axes share the stride and the first centre.

    Attributes:
        stride (float): Distance of neighbouring cells in input pixels.
        first (float): Centre of the first cell in input pixels; the centre of the first pixel is at 0.
    """

    stride: float
    first: float

    def pooled(self, ratio: float) -> "CellGeometry":
        """Geometry after ``ratio`` neighbouring cells became one."""
        return CellGeometry(self.stride * ratio, self.first + self.stride * (ratio - 1) / 2)


PIXELS = CellGeometry(1.0, 0.0)


def interpolation_matrix(cells: int, source: CellGeometry, points: int, target: CellGeometry = PIXELS) -> Tensor:
    """Linear interpolation along one axis; the outermost cells extend to the border.

    Args:
        cells (int): Number of cells that have values.
        source (CellGeometry): Where they lie.
        points (int): Number of points that get values.
        target (CellGeometry): Where these lie; pixels of the image by default.

    Returns:
        Tensor: Matrix of shape ``(points, cells)`` whose rows sum to one.
    """
    pixels = torch.arange(points, dtype=torch.float64) * target.stride + target.first
    position = ((pixels - source.first) / source.stride).clamp(0, cells - 1)
    return (1 - (position[:, None] - torch.arange(cells)).abs()).clamp_min(0).float()


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


def resampling_matrix(cells: int, source: CellGeometry, points: int, target: CellGeometry) -> Tensor:
    """Bring cells to another grid along one axis: averaged to its stride first if finer, then interpolated.

    Args:
        cells (int): Number of cells.
        source (CellGeometry): Where they lie.
        points (int): Number of cells of the other grid.
        target (CellGeometry): Where these lie.

    Returns:
        Tensor: Matrix of shape ``(points, cells)`` whose rows sum to one.
    """
    pooled = max(1, round(cells * min(1.0, source.stride / target.stride)))
    pooling = pooling_matrix(cells, pooled)
    return interpolation_matrix(pooled, source.pooled(cells / pooled), points, target) @ pooling


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
    """Bring maps to another grid: ``rows @ values @ columns.T``.

    Args:
        values (Tensor): Maps of shape ``(..., h, w)``.
        rows (Tensor | None): Matrix ``(H, h)``; ``None`` for the identity.
        columns (Tensor | None): Matrix ``(W, w)``; ``None`` for the identity.

    Returns:
        Tensor: Maps of shape ``(..., H, W)``.
    """
    if columns is not None:
        values = values @ columns.T
    if rows is not None:
        # also on the right: OpenVINO cannot quantise matrices on the left
        values = (values.transpose(-1, -2) @ rows.T).transpose(-1, -2)
    return values
