# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N803, N806, N812 (A, B, C, D and F are the names of the field)

"""Selective scan (S6), the recurrence of Mamba, with the interface of mamba-ssm on every device.

===========  ===========================================================================
backend      what it is for
===========  ===========================================================================
reference    float64 loop over the tokens; the oracle of the tests
chunked      pure PyTorch with its own backward pass; the default without a faster one
c            C kernel, built on first use; CPU tensors where a compiler exists
scan_op      torch's ``scan`` operator; ``torch.export`` and ONNX
blocked      products only, about ``2 sqrt(L)`` steps; ``torch.jit.trace``
cuda         mamba-ssm's kernel; GPU tensors where ``selective_scan_cuda`` imports
===========  ===========================================================================
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .c_kernel import c_scan
from .c_kernel import is_available as c_is_available
from .chunked import chunked_core
from .cuda import cuda_scan
from .cuda import is_available as cuda_is_available
from .reference import selective_scan_reference
from .scan_op import blocked_core, scan_op_core

_CORES = {"chunked": chunked_core, "scan_op": scan_op_core, "blocked": blocked_core}
BACKENDS = ("auto", "reference", "c", *_CORES, "cuda")


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    backend: str = "auto",
) -> Tensor:
    r"""Scan a sequence with input-dependent state-space parameters.

    .. math::
        h_t = \exp(\Delta_t A) h_{t-1} + \Delta_t B_t u_t, \qquad
        y_t = (\langle C_t, h_t \rangle + D u_t) \, \mathrm{SiLU}(z_t)

    Computed in float32 (float64 if ``u`` is float64) whatever autocast says, because the recurrence loses its memory
    in half precision. Channels fall into ``G`` consecutive groups that share ``B`` and ``C``.

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
        backend (str): One of ``BACKENDS``; ``"auto"`` takes the fastest that fits the tensors and the capture mode.

    Returns:
        Tensor: Output of shape ``(b, D, L)`` in the type of ``u``.

    Raises:
        ValueError: If a shape does not fit or the backend is unknown.
        RuntimeError: If the backend cannot run here.

    Example:
        >>> u, delta = torch.randn(2, 8, 64), torch.rand(2, 8, 64)
        >>> B, C = torch.randn(2, 2, 4, 16, 64).unbind(0)
        >>> selective_scan(u, delta, -torch.rand(8, 16), B, C).shape
        torch.Size([2, 8, 64])
    """
    if not torch.jit.is_tracing():  # which warns about every comparison of sizes
        _check_shapes(u, delta, A, B, C, D, z, delta_bias)
    backend = _choose_backend(u, A.shape[1]) if backend == "auto" else backend
    with torch.autocast(u.device.type, enabled=False):
        if backend == "reference":
            return selective_scan_reference(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
        if backend == "cuda":
            if not (u.is_cuda and cuda_is_available()):
                msg = (
                    f"The 'cuda' scan needs tensors on a GPU (these are on '{u.device}') and mamba-ssm built with its "
                    "selective_scan_cuda extension; install the extra 'cuda' or use backend='auto'."
                )
                raise RuntimeError(msg)
            return cuda_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
        if backend == "c" and not c_is_available(u, A.shape[1]):
            msg = (
                f"The 'c' scan needs a C compiler, ANOMALIB_VMPFD_C_KERNEL not set to 0 and half or single precision "
                f"tensors on the CPU (these are {u.dtype} on '{u.device}'); use backend='auto'."
            )
            raise RuntimeError(msg)
        if backend != "c" and backend not in _CORES:
            msg = f"Unknown scan backend '{backend}'; choose one of {', '.join(BACKENDS)}."
            raise ValueError(msg)
        return _scan_with(_CORES.get(backend), u, delta, A, B, C, D, z, delta_bias, delta_softplus)


def _scan_with(core, u, delta, A, B, C, D, z, delta_bias, delta_softplus) -> Tensor:  # noqa: ANN001
    """Wrap the bare recurrence ``core`` into bias, softplus, skip and gate; without a core the C kernel does it all."""
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    x, delta, A, B, C, D, z, delta_bias = (
        None if tensor is None else tensor.to(dtype) for tensor in (u, delta, A, B, C, D, z, delta_bias)
    )
    if B.ndim == 3:
        B, C = B[:, None], C[:, None]
    if core is None:
        y = c_scan(x, delta, A, B, C, D, delta_bias, delta_softplus)
    else:
        if delta_bias is not None:
            delta = delta + delta_bias[:, None]
        y = core(x, F.softplus(delta) if delta_softplus else delta, A, B, C)
        if D is not None:
            y = y + D[:, None] * x
    if z is not None:
        y = y * F.silu(z)
    return y.to(u.dtype)


def _choose_backend(u: Tensor, states: int) -> str:
    if torch.compiler.is_exporting():
        return "scan_op"
    if torch.jit.is_tracing():
        return "blocked"
    if u.is_cuda and u.dtype != torch.float64 and cuda_is_available():
        return "cuda"
    if not torch.compiler.is_compiling() and c_is_available(u, states):
        return "c"
    return "chunked"


def _check_shapes(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    if u.ndim != 3 or u.shape[-1] == 0:
        msg = f"The scan's u must be (batch, channels, tokens) with at least one token, got {tuple(u.shape)}."
        raise ValueError(msg)
    batch, channels, length = u.shape
    if A.ndim != 2 or A.shape[0] != channels:
        msg = f"The scan's A must be (channels, states) with the {channels} channels of u, got {tuple(A.shape)}."
        raise ValueError(msg)
    for name, tensor, shape in (
        ("delta", delta, u.shape),
        ("z", z, u.shape),
        ("D", D, (channels,)),
        ("delta_bias", delta_bias, (channels,)),
    ):
        if tensor is not None and tensor.shape != shape:
            msg = f"The scan's {name} must have shape {tuple(shape)}, got {tuple(tensor.shape)}."
            raise ValueError(msg)
    states = A.shape[1]
    expected = (batch, states, length) if B.ndim == 3 else (batch, *B.shape[1:2], states, length)
    for name, tensor in (("B", B), ("C", C)):
        if tensor.ndim not in {3, 4} or tensor.shape != expected:
            msg = (
                f"The scan's {name} must be ({batch}, {states}, {length}) or ({batch}, groups, {states}, {length}), B "
                f"and C alike, got {tuple(tensor.shape)}."
            )
            raise ValueError(msg)
    if B.ndim == 4 and channels % B.shape[1]:
        msg = f"The scan's {channels} channels do not divide into the {B.shape[1]} groups of B and C."
        raise ValueError(msg)
