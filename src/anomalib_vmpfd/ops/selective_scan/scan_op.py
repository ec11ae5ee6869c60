# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N803, N806, N812 (A, B, C, D and F are the names of the field)

"""Selective scans for graph capture: few nodes whatever the number of tokens, and no custom operator."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

try:
    from torch._higher_order_ops import scan as _scan
except ImportError:  # a prototype of PyTorch, free to move
    _scan = None


def scan_op_core(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Run the recurrence through torch's ``scan`` operator, which exports as one ONNX ``Scan`` node.

    Decays and inputs enter as scanned tensors and the body captures nothing: OpenVINO rejects a ``Scan`` whose body
    reads outer values. The body is elementwise over equal shapes: a product with ``C`` in it would carry the symbolic
    batch inside, which the exporter of torch 2.15 cannot decompose. Falls back to :func:`blocked_core` where torch has
    no such operator.

    Args:
        u (Tensor): Input of shape ``(b, D, L)``.
        delta (Tensor): Positive step sizes of shape ``(b, D, L)``.
        A (Tensor): Decay rates of shape ``(D, N)``.
        B (Tensor): Input matrix of shape ``(b, G, N, L)``.
        C (Tensor): Output matrix of shape ``(b, G, N, L)``.

    Returns:
        Tensor: ``(b, D, L)``.
    """
    if _scan is None:
        return blocked_core(u, delta, A, B, C)
    decay, drive = _discretise(u, delta, A, B)
    _, h = _scan(_step, torch.zeros_like(drive[0]), (decay, drive))
    return _read_out(C, h)


def blocked_core(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Run the recurrence in two levels of about ``sqrt(L)`` steps each: for tracing, where every step is a node.

    Only products of decays appear, never their quotients or logarithms, so strong decay underflows to the right zero.
    Arguments and result as in :func:`scan_op_core`.
    """
    length = u.shape[-1]
    block = math.isqrt(length - 1) + 1
    # a zero step size leaves the state alone: decay 1, drive 0
    u, delta, B = (F.pad(x, (0, -length % block)) for x in (u, delta, B))
    decay, drive = (x.unflatten(0, (-1, block)) for x in _discretise(u, delta, A, B))

    local, product = [drive[:, 0]], [decay[:, 0]]
    for a, x in zip(decay.unbind(1)[1:], drive.unbind(1)[1:], strict=True):
        local.append(a * local[-1] + x)
        product.append(a * product[-1])
    # states after each block, from the blocks' own end states
    ends = [local[-1][0]]
    for p, s in zip(product[-1].unbind(0)[1:], local[-1].unbind(0)[1:], strict=True):
        ends.append(p * ends[-1] + s)
    h = torch.stack(local, dim=1)
    if len(ends) > 1:
        before = torch.stack(ends[:-1]).unsqueeze(1)
        h = torch.cat([h[:1], h[1:] + torch.stack(product, dim=1)[1:] * before])
    return _read_out(C, h.flatten(0, 1)[:length])


def _step(turned: Tensor, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    # the state goes on with its sign turned: where OpenVINO knows the shapes, it computes a state that is an output as
    # well in the place of its input, and takes the next input for the state
    decay, drive = inputs
    state = drive - decay * turned
    return -state, state.clone()


def _discretise(u: Tensor, delta: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Return exp(delta A) and delta B u, both ``(L, b, G, N, E)``."""
    groups = B.shape[1]
    A = A.unflatten(0, (groups, -1)).transpose(1, 2)
    u, delta = (x.unflatten(1, (groups, -1)).permute(3, 0, 1, 2).unsqueeze(-2) for x in (u, delta))
    return torch.exp(delta * A), delta * u * B.permute(3, 0, 1, 2).unsqueeze(-1)


def _read_out(C: Tensor, h: Tensor) -> Tensor:
    """Contract the states ``(L, b, G, N, E)`` with ``C (b, G, N, L)`` to ``(b, D, L)``."""
    y = torch.matmul(C.permute(3, 0, 1, 2).unsqueeze(-2), h).squeeze(-2)
    return y.permute(1, 2, 3, 0).flatten(1, 2)
