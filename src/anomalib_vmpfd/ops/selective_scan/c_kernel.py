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

logger = logging.getLogger(__name__)

CHUNK = 64  # as in scan.c
MAX_STATES = 256
FLAGS = ("-O3", "-std=c99", "-fopenmp-simd", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
# state updates that pay for starting a thread, about 2 ms of work
WORK_PER_THREAD = 2**22


def is_available(inputs: Tensor, states: int) -> bool:
    """Tell whether the kernel takes these tensors and could be built; the first call builds it."""
    return (
        inputs.device.type == "cpu"
        and inputs.dtype != torch.float64
        and states <= MAX_STATES
        and os.environ.get("ANOMALIB_VMPFD_C_KERNEL", "1") != "0"
        and _library() is not None
    )


def c_core(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Run the bare recurrence ``y_t = C_t h_t``; arguments and result as in ``chunked_core``, float32 on the CPU."""
    B, C = (x.transpose(-1, -2).contiguous() for x in (B, C))
    return _CScan.apply(u.contiguous(), delta.contiguous(), A.contiguous(), B, C)


class _CScan(torch.autograd.Function):
    """``u, delta (b, D, L)``, ``A (D, N)``, ``B, C (b, G, L, N)``."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:  # noqa: ANN401
        batch, groups, length, _ = B.shape
        y = torch.empty_like(u)
        starts = u.new_empty(batch, -(-length // CHUNK), *A.shape) if any(ctx.needs_input_grad) else None
        _run("scan_forward", (u, delta, A, B, C, y, starts), u.shape[1] // groups, B.shape)
        ctx.save_for_backward(u, delta, A, B, C, *([] if starts is None else [starts]))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        u, delta, A, B, C, starts = ctx.saved_tensors
        grads = [torch.empty_like(x) for x in (u, delta, A.expand(len(u), *A.shape), B, C)]
        _run(
            "scan_backward",
            (u, delta, A, B, C, starts, grad_y.contiguous(), *grads),
            u.shape[1] // B.shape[1],
            B.shape,
        )
        grads[2] = grads[2].sum(0)
        return tuple(grads)


def _run(name: str, tensors: tuple[Tensor | None, ...], channels: int, shape: torch.Size) -> None:
    """Call a function of the library, its pairs of image and group divided among threads.

    ctypes releases the interpreter lock. Threads of one call each, and no pool: nothing to break in a forked process,
    nothing that spins beside torch's own.
    """
    batch, groups, length, states = shape
    function, pairs = getattr(_library(), name), batch * groups
    pointers = [None if x is None else x.data_ptr() for x in tensors]
    threads = max(1, min(torch.get_num_threads(), pairs, pairs * channels * length * states // WORK_PER_THREAD))
    bounds = [pairs * i // threads for i in range(threads + 1)]
    # scratch of one state for each channel
    scratch = torch.empty(threads, channels * states)

    def work(i: int) -> None:
        function(*pointers, scratch[i].data_ptr(), groups, channels, length, states, bounds[i], bounds[i + 1])

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
    for name, pointers in (("scan_forward", 8), ("scan_backward", 13)):
        function = getattr(library, name)
        function.argtypes = [ctypes.c_void_p] * pointers + [ctypes.c_ssize_t] * 6
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
