# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N803, N806 (A, B, C and D are the names of the field)

"""Selective scan in C, built on first use where a compiler exists.

A plain C ABI through ctypes, so that no build depends on the version of torch. The library lies in the user's cache
under a hash of all that it was made from. No compiler, a failed build or ``ANOMALIB_VMPFD_C_KERNEL=0`` leaves the scan
to PyTorch, in silence: nothing but time is lost.
"""

import ctypes
import hashlib
import logging
import math
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from platformdirs import user_cache_path
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812

logger = logging.getLogger(__name__)

CHUNK, WIDTH = 16, 16  # tokens of a chunk and channels of a block, as in scan.c
MAX_STATES = 256
# state updates that pay for starting a thread, about 0.5 ms of work
WORK_PER_THREAD = 2**20
FLAGS = ("-O3", "-std=c99", "-fopenmp-simd", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")


def is_available(inputs: Tensor, states: int) -> bool:
    """Tell whether the kernel takes these tensors and could be built; the first call builds it."""
    return (
        inputs.device.type == "cpu"
        and inputs.dtype != torch.float64
        and states <= MAX_STATES
        and os.environ.get("ANOMALIB_VMPFD_C_KERNEL", "1") != "0"
        and _library() is not None
    )


def c_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> Tensor:
    """Run the scan without its gate; arguments and result as in ``selective_scan``, float32 on the CPU.

    Nothing is copied where the channels of ``u`` and ``delta`` and the states of ``B`` and ``C``, of shape
    ``(b, G, N, L)``, are innermost in memory.
    """
    groups = B.shape[1]
    u, delta = (x.transpose(1, 2).unflatten(2, (groups, -1)).contiguous() for x in (u, delta))
    A, D, delta_bias = (
        None if x is None else _blocks(x.unflatten(0, (groups, -1))) for x in (A * math.log2(math.e), D, delta_bias)
    )
    zeros = A.new_zeros(A.shape[:2] + A.shape[3:])
    B, C = (x.permute(0, 3, 1, 2).contiguous() for x in (B, C))
    y = _CScan.apply(
        u, delta, A, B, C, zeros if D is None else D, zeros if delta_bias is None else delta_bias, delta_softplus
    )
    return y.flatten(2).transpose(1, 2)


def _blocks(x: Tensor) -> Tensor:
    """Turn ``(G, E)`` and ``(G, E, N)`` into ``(G, blocks, WIDTH)`` and ``(G, blocks, N, WIDTH)``."""
    if x.ndim == 2:
        return F.pad(x, (0, -x.shape[1] % WIDTH)).unflatten(1, (-1, WIDTH)).contiguous()
    return F.pad(x, (0, 0, 0, -x.shape[1] % WIDTH)).unflatten(1, (-1, WIDTH)).transpose(2, 3).contiguous()


class _CScan(torch.autograd.Function):
    """``u, delta (b, L, G, E)``, ``A (G, blocks, N, W)`` of powers of 2, ``B, C (b, L, G, N)``; D, bias as ``A``."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:  # noqa: ANN401
        *tensors, softplus = arguments
        u, A = tensors[0], tensors[2]
        y = torch.empty_like(u)
        keep = any(ctx.needs_input_grad)
        starts = u.new_empty(u.shape[0], u.shape[2], -(-u.shape[1] // CHUNK), *A.shape[1:]) if keep else None
        _run("scan_forward", (*tensors, y, starts), softplus, u.shape, A.shape[2])
        ctx.softplus = softplus
        ctx.save_for_backward(*tensors, *([] if starts is None else [starts]))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        *tensors, starts = ctx.saved_tensors
        u, delta, A, B, C, D, bias = tensors
        grad_u, grad_delta, grad_B, grad_C = (torch.empty_like(x) for x in (u, delta, B, C))
        of_channels = [u.new_empty(len(u), *x.shape) for x in (A, D, bias)]
        grads = (grad_u, grad_delta, of_channels[0], grad_B, grad_C, *of_channels[1:])
        _run("scan_backward", (*tensors, starts, grad_y.contiguous(), *grads), ctx.softplus, u.shape, A.shape[2])
        grad_A, grad_D, grad_bias = (x.sum(0) for x in of_channels)
        # the kernel gives the gradient by A itself
        return grad_u, grad_delta, grad_A * math.log(2), grad_B, grad_C, grad_D, grad_bias, None


def _run(name: str, tensors: tuple[Tensor | None, ...], softplus: bool, shape: torch.Size, states: int) -> None:
    """Call a function of the library, its pairs of image and group divided among threads.

    ctypes releases the interpreter lock. Threads of one call each, and no pool: nothing to break in a forked process,
    nothing that spins beside torch's own.
    """
    batch, length, groups, channels = shape
    function, pairs = getattr(_library(), name), batch * groups
    pointers = [None if x is None else x.data_ptr() for x in tensors]
    threads = max(1, min(torch.get_num_threads(), pairs, pairs * channels * length * states // WORK_PER_THREAD))
    bounds = [pairs * i // threads for i in range(threads + 1)]
    # the states of all channels and, backwards, four arrays of a chunk
    blocks = -(-channels // WIDTH) + 4 * (CHUNK + 1)
    scratch = torch.empty(threads, blocks * states * WIDTH)

    def work(i: int) -> None:
        sizes = (int(softplus), groups, channels, length, states, bounds[i], bounds[i + 1])
        function(*pointers, scratch[i].data_ptr(), *sizes)

    others = [Thread(target=work, args=(i,)) for i in range(1, threads)]
    for thread in others:
        thread.start()
    work(0)
    for thread in others:
        thread.join()


@cache
def _library() -> ctypes.CDLL | None:
    """Load the library, built for this processor if it is not in the cache; None if that fails."""
    source = Path(__file__).with_name("scan.c").read_bytes()
    target = _cache_path(source)
    try:
        if not target.exists():
            _build(source, target)
        library = ctypes.CDLL(str(target))
    except (OSError, subprocess.SubprocessError) as error:
        logger.debug("The C scan could not be built, PyTorch takes over: %s", error)
        return None
    for name, pointers in (("scan_forward", 10), ("scan_backward", 17)):
        function = getattr(library, name)
        function.argtypes = [ctypes.c_void_p] * pointers + [ctypes.c_ssize_t] * 7
        function.restype = None
    return library


def _cache_path(source: bytes) -> Path:
    """Name the library by its source and by the processor, as home directories are shared between machines."""
    processor = platform.machine() + platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        processor += next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    key = hashlib.sha256(b"\0".join([source, " ".join(FLAGS).encode(), processor.encode()])).hexdigest()
    return user_cache_path("anomalib_vmpfd") / f"scan-{key[:20]}.so"


def _build(source: bytes, target: Path) -> None:
    """Compile to a temporary file and move it into place, so that no process ever loads half a library."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        msg = "no C compiler found"
        raise FileNotFoundError(msg)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / "scan.so"
        (Path(folder) / "scan.c").write_bytes(source)
        command = [compiler, *FLAGS, "-fPIC", "-shared", "-o", str(built), str(Path(folder) / "scan.c")]
        try:
            subprocess.run([*command, "-march=native"], check=True, capture_output=True, timeout=60)  # noqa: S603
        except subprocess.CalledProcessError:  # some compilers know no -march=native
            subprocess.run(command, check=True, capture_output=True, timeout=60)  # noqa: S603
        built.replace(target)
