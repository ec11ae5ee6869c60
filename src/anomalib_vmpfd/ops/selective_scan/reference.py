# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N803, N806, N812 (A, B, C, D and F are the names of the field)

"""Float64 selective scan, one token at a time: the definition the other backends are tested against."""

import torch
from torch import Tensor
from torch.nn import functional as F


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    r"""Evaluate the recurrence of S6 literally, in float64.

    .. math::
        h_t = \exp(\Delta_t A) h_{t-1} + \Delta_t B_t u_t, \qquad
        y_t = (\langle C_t, h_t \rangle + D u_t) \, \mathrm{SiLU}(z_t)

    Differentiable by autograd. The tokens are taken apart with ``unbind``: indexing each step instead makes the
    backward pass quadratic in the length, because every index fills a gradient of the full size with zeros.

    Args:
        u (Tensor): Input of shape ``(b, D, L)``.
        delta (Tensor): Step sizes of shape ``(b, D, L)``.
        A (Tensor): Decay rates of shape ``(D, N)``, negative for a stable system.
        B (Tensor): Input matrix of shape ``(b, N, L)`` or ``(b, G, N, L)``.
        C (Tensor): Output matrix, shaped like ``B``.
        D (Tensor | None): Skip weights of shape ``(D,)``.
        z (Tensor | None): Gate of shape ``(b, D, L)``.
        delta_bias (Tensor | None): Added to ``delta``, shape ``(D,)``.
        delta_softplus (bool): Pass ``delta`` through a softplus after the bias.

    Returns:
        Tensor: ``(b, D, L)`` in the type of ``u``.
    """
    out_dtype, channels = u.dtype, u.shape[1]
    u, delta, A, B, C = (tensor.double() for tensor in (u, delta, A, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias.double()[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    if B.ndim == 3:
        B, C = B[:, None], C[:, None]
    B, C = (tensor.repeat_interleave(channels // tensor.shape[1], dim=1) for tensor in (B, C))

    state = u.new_zeros(u.shape[0], channels, A.shape[1])
    outputs = []
    for u_t, delta_t, B_t, C_t in zip(u.unbind(-1), delta.unbind(-1), B.unbind(-1), C.unbind(-1), strict=True):
        state = torch.exp(delta_t[..., None] * A) * state + (delta_t * u_t)[..., None] * B_t
        outputs.append((state * C_t).sum(-1))
    y = torch.stack(outputs, dim=-1)
    if D is not None:
        y = y + D.double()[:, None] * u
    if z is not None:
        y = y * F.silu(z.double())
    return y.to(out_dtype)
