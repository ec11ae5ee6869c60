# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Principal components of long rows, the same on every machine."""

import torch
from torch import Tensor

NULL = 1e-10  # part of the largest eigenvalue below which float64 knows no direction


@torch.no_grad()
def principal_components(rows: Tensor, count: int, products: Tensor | None = None) -> Tensor:
    """Orthonormal directions along which rows vary most about zero, the right singular vectors of their matrix.

    The rows are not centred. They are decomposed in float64 by the smaller of ``rows @ rows.T`` and
    ``rows.T @ rows``, so few long rows cost little. The largest entry of a component by magnitude is positive: the sign
    that an eigenvector comes with differs between linear algebra libraries.

    Args:
        rows (Tensor): Values of shape ``(N, D)``.
        count (int): Number of components. Few rows have many components that only remember these rows, so ask for at
            most half as many as there are rows if others are to be coded.
        products (Tensor | None): ``rows @ rows.T`` where it is known, in float64, ``(N, N)``.

    Returns:
        Tensor: Components of shape ``(count, D)`` in the rows' type, by falling variance. Those beyond the rank of the
            rows are zero.

    Example:
        >>> principal_components(torch.tensor([[-3.0, 0.0], [0.0, 1.0]]), 1)
        tensor([[1., 0.]])
    """
    values = rows.double()
    wide = len(values) <= values.shape[1]
    if products is None or not wide:
        products = values @ values.T if wide else values.T @ values
    variances, vectors = torch.linalg.eigh(products)
    variances, vectors = variances.flip(0)[:count], vectors.flip(1)[:, :count]
    rank = int((variances > NULL * variances[0]).sum())
    basis = vectors[:, :rank].T
    if wide:
        basis = basis @ values / variances[:rank, None].sqrt()
    components = torch.zeros(count, values.shape[1], dtype=rows.dtype, device=rows.device)
    components[:rank] = (basis * basis.gather(1, basis.abs().argmax(1, keepdim=True)).sign()).to(rows.dtype)
    return components


def code_length(code: int, images: int) -> int:
    """Components that so many images allow: half as many as images at most, as more would only remember them."""
    return min(code, max(1, images // 2))
