# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N803, N806 (A, B, C and D are the names of the field)

"""Selective scan in plain PyTorch: a few tokens at a time, with a backward pass of its own.

Two measured facts shape this file. Autograd through a token loop keeps three ``(b, D, L, N)`` tensors; here only the
state before each chunk is kept and the chunk is run again in the backward pass. And on a CPU the first touch of fresh
memory costs more than the arithmetic, so one set of small buffers, with the channels innermost, serves all chunks.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 16


def _time_first(x: Tensor) -> Tensor:
    """View ``(b, G, S, L)`` as ``(L, b, G, S)``, copied only where the channels are not innermost in memory."""
    return x.permute(0, 3, 1, 2).contiguous().transpose(0, 1)


class _ChunkedScan(torch.autograd.Function):
    """The recurrence alone; the softplus, the skip and the gate are elementwise and belong to the caller.

    Shapes inside: ``K`` tokens of a chunk, ``G`` groups of ``E`` channels: ``u, delta (L, b, G, E)``, ``A (G, N, E)``,
    ``B, C (L, b, G, N)``, states ``(K, b, G, N, E)``.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:  # noqa: ANN401
        length, batch, groups, channels = u.shape
        states = A.shape[1]
        keep = any(ctx.needs_input_grad)
        starts = u.new_empty(-(-length // CHUNK), batch, groups, states, channels) if keep else None
        decay, h = u.new_empty(2, min(CHUNK, length), batch, groups, states, channels)
        carry = u.new_zeros(batch, groups, states, channels)
        y = torch.empty_like(u)
        for index, start in enumerate(range(0, length, CHUNK)):
            if starts is not None:
                starts[index] = carry
            part = slice(start, start + CHUNK)
            _run_chunk(u[part], delta[part], A, B[part], carry, decay, h)
            size = u[part].shape[0]
            torch.matmul(C[part].unsqueeze(-2), h[:size], out=y[part].unsqueeze(-2))
            carry.copy_(h[size - 1])
        ctx.save_for_backward(u, delta, A, B, C, *([] if starts is None else [starts]))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        with torch.autocast(grad_y.device.type, enabled=False):
            return _ChunkedScan._backward(ctx, grad_y)

    @staticmethod
    def _backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        u, delta, A, B, C, starts = ctx.saved_tensors
        shape = (min(CHUNK, u.shape[0]), *starts.shape[1:])
        grad_y = grad_y.transpose(0, 1).contiguous().transpose(0, 1)
        grad_u, grad_delta = torch.empty_like(u), torch.empty_like(u)
        grad_A, grad_B, grad_C = torch.zeros_like(A), torch.empty_like(B), torch.empty_like(C)
        decay, h, g, scratch = u.new_empty(4, *shape)
        # gradient that reaches the last state of a chunk from the chunk after it
        later = u.new_zeros(starts.shape[1:])
        for index in reversed(range(starts.shape[0])):
            part = slice(index * CHUNK, (index + 1) * CHUNK)
            u_c, delta_c, grad_c = u[part], delta[part], grad_y[part]
            size = u_c.shape[0]
            _run_chunk(u_c, delta_c, A, B[part], starts[index], decay, h)
            a_c, h_c, g_c, q_c = decay[:size], h[:size], g[:size], scratch[:size]

            # g_t = C_t grad_y_t + a_{t+1} g_{t+1}
            torch.mul(grad_c.unsqueeze(-2), C[part].unsqueeze(-1), out=g_c)
            g_c[-1] += later
            for t in range(size - 2, -1, -1):
                g_c[t].addcmul_(a_c[t + 1], g_c[t + 1])
            torch.mul(a_c[0], g_c[0], out=later)

            # through the input term delta_t u_t B_t and the output term C_t h_t
            du = (delta_c * u_c).unsqueeze(-1)
            torch.matmul(g_c, du, out=grad_B[part].unsqueeze(-1))
            torch.matmul(h_c, grad_c.unsqueeze(-1), out=grad_C[part].unsqueeze(-1))
            grad_du = torch.matmul(B[part].unsqueeze(-2), g_c).squeeze(-2)
            torch.mul(grad_du, delta_c, out=grad_u[part])

            # through the decay: q_t = g_t a_t h_{t-1} is the gradient of delta_t A
            torch.mul(a_c, g_c, out=q_c)
            q_c[0] *= starts[index]
            q_c[1:] *= h_c[:-1]
            torch.mul(q_c, A, out=g_c)
            torch.sum(g_c, dim=-2, out=grad_delta[part])
            grad_delta[part].addcmul_(grad_du, u_c)
            q_c *= delta_c.unsqueeze(-2)
            grad_A += q_c.sum(dim=(0, 1))
        return grad_u, grad_delta, grad_A, grad_B, grad_C


def _run_chunk(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, before: Tensor, decay: Tensor, h: Tensor) -> None:
    """Fill ``decay`` and ``h`` with exp(delta A) and the states of one chunk that starts from the state ``before``."""
    size = u.shape[0]
    torch.mul(delta.unsqueeze(-2), A, out=decay[:size]).exp_()
    torch.mul((delta * u).unsqueeze(-2), B.unsqueeze(-1), out=h[:size])
    h[0].addcmul_(decay[0], before)
    for t in range(1, size):
        h[t].addcmul_(decay[t], h[t - 1])


def chunked_core(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Run the bare recurrence ``y_t = C_t h_t``, memory linear in the number of tokens.

    Args:
        u (Tensor): Input of shape ``(b, D, L)``.
        delta (Tensor): Positive step sizes of shape ``(b, D, L)``.
        A (Tensor): Decay rates of shape ``(D, N)``.
        B (Tensor): Input matrix of shape ``(b, G, N, L)``.
        C (Tensor): Output matrix of shape ``(b, G, N, L)``.

    Returns:
        Tensor: ``(b, D, L)``.
    """
    groups = B.shape[1]
    u, delta = (_time_first(x.unflatten(1, (groups, -1))) for x in (u, delta))
    A = A.unflatten(0, (groups, -1)).transpose(1, 2).contiguous()
    y = _ChunkedScan.apply(u, delta, A, _time_first(B), _time_first(C))
    return y.permute(1, 2, 3, 0).flatten(1, 2)
