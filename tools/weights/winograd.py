# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Winograd convolution in float32, for training on CPUs whose library multiplies every tap.

A 4x4 kernel costs 16 multiplications an output and channel pair; outputs in tiles of 3x3 need 36 for 9 outputs, four
times less, and they are plain matrix products (Lavin and Gray, arXiv 1509.09308).
"""

from fractions import Fraction
from functools import cache

import torch
from torch import Tensor

POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(2), Fraction(-1, 2))
TILE = 3


def _product(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients, constant first, of the monic polynomial with these roots."""
    poly = [Fraction(1)]
    for root in roots:
        poly = [a - root * b for a, b in zip([Fraction(0), *poly], [*poly, Fraction(0)], strict=True)]
    return poly


@cache
def transforms(kernel: int) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices of ``y = A' ((G w) * (B x))`` in 2-D, the Kronecker squares of Cook and Toom's.

    Returns:
        tuple[Tensor, Tensor, Tensor]: B (n^2, n^2), G (n^2, kernel^2) and A' (TILE^2, n^2) with n = TILE + kernel - 1.
    """
    n = TILE + kernel - 1
    points = list(POINTS[: n - 1])
    b, g, a = [], [], []
    for i, p in enumerate(points):
        others = points[:i] + points[i + 1 :]
        scale = Fraction(1)
        for q in others:
            scale *= p - q
        b.append([*_product(others), Fraction(0)])
        g.append([p**j / scale for j in range(kernel)])
        a.append([p**j for j in range(TILE)])
    b.append(_product(points))
    g.append([Fraction(int(j == kernel - 1)) for j in range(kernel)])
    a.append([Fraction(int(j == TILE - 1)) for j in range(TILE)])
    b, g, a = (torch.tensor([[float(v) for v in row] for row in m], dtype=torch.float64) for m in (b, g, a))
    return torch.kron(b, b).float(), torch.kron(g, g).float(), torch.kron(a.T, a.T).float().contiguous()


class WinogradConv2d(torch.autograd.Function):
    """Valid convolution, stride 1, of channels-last images by a square kernel."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:  # noqa: ANN001
        """Convolve x (B, C, H, W) with weight (O, C, k, k)."""
        out_channels, channels, kernel, _ = weight.shape
        b, g, a = transforms(kernel)
        batch, rows, cols = len(x), x.shape[2] - kernel + 1, x.shape[3] - kernel + 1
        tiles_y, tiles_x = -(-rows // TILE), -(-cols // TILE)
        n = TILE + kernel - 1
        image = x.permute(0, 2, 3, 1)
        ctx.geometry = geometry = (batch, rows, cols, tiles_y, tiles_x, n, channels, out_channels, kernel)
        pad = (0, 0, 0, tiles_x * TILE - cols, 0, tiles_y * TILE - rows)
        image = torch.nn.functional.pad(image, pad) if any(pad) else image
        tiles = image.new_empty(n * n, batch, tiles_y, tiles_x, channels)
        for i in range(n):
            for j in range(n):
                tiles[i * n + j] = _taps(image, i, j, geometry)
        x_hat = (b @ tiles.view(n * n, -1)).view(n * n, -1, channels)
        w_hat = (g @ weight.permute(2, 3, 1, 0).reshape(kernel * kernel, -1)).view(n * n, channels, out_channels)
        ctx.save_for_backward(x_hat, w_hat)
        y = a @ torch.bmm(x_hat, w_hat).view(n * n, -1)
        y = y.view(TILE, TILE, batch, tiles_y, tiles_x, out_channels).permute(2, 3, 0, 4, 1, 5)
        y = y.reshape(batch, tiles_y * TILE, tiles_x * TILE, out_channels)[:, :rows, :cols]
        return y.contiguous().permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor]:  # noqa: ANN001
        """Transposed transforms around transposed products."""
        batch, rows, cols, tiles_y, tiles_x, n, channels, out_channels, kernel = geometry = ctx.geometry
        b, g, a = transforms(kernel)
        x_hat, w_hat = ctx.saved_tensors
        pad = (0, 0, 0, tiles_x * TILE - cols, 0, tiles_y * TILE - rows)
        grad = torch.nn.functional.pad(grad.permute(0, 2, 3, 1), pad)
        grad = grad.view(batch, tiles_y, TILE, tiles_x, TILE, out_channels).permute(2, 4, 0, 1, 3, 5)
        grad = (a.T @ grad.reshape(TILE * TILE, -1)).view(n * n, -1, out_channels)
        dw = (g.T @ torch.bmm(x_hat.mT, grad).view(n * n, -1)).view(kernel, kernel, channels, out_channels)
        tiles = (b.T @ torch.bmm(grad, w_hat.mT).view(n * n, -1)).view(n * n, batch, tiles_y, tiles_x, channels)
        image = tiles.new_zeros(batch, tiles_y * TILE + kernel - 1, tiles_x * TILE + kernel - 1, channels)
        for i in range(n):
            for j in range(n):
                _taps(image, i, j, geometry).add_(tiles[i * n + j])
        dx = image[:, : rows + kernel - 1, : cols + kernel - 1].contiguous().permute(0, 3, 1, 2)
        return dx, dw.permute(3, 2, 0, 1)


def _taps(image: Tensor, i: int, j: int, geometry: tuple[int, ...]) -> Tensor:
    """Pixel (i, j) of every tile of an image (B, H, W, C)."""
    tiles_y, tiles_x = geometry[3:5]
    return image[:, i : i + TILE * (tiles_y - 1) + 1 : TILE, j : j + TILE * (tiles_x - 1) + 1 : TILE]


def conv2d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``torch.nn.functional.conv2d`` for stride 1 without padding."""
    return WinogradConv2d.apply(x, weight) + bias[:, None, None]
