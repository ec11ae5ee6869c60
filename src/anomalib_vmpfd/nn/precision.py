# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Full float32 where a difference of large numbers must not lose its digits, or two devices must agree."""

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def full_convolutions() -> Generator[None, None, None]:
    """Compute float32 convolutions on a GPU in float32.

    torch rounds them to TF32 there by default, while it leaves matrix products alone. Distances to normals then differ
    from those on a CPU by more than a verdict can bear. Autocast, which somebody has asked for, is left alone, and so
    is an exported graph: its runtime has switches of its own.
    """
    if _becomes_a_graph():
        yield
        return
    cudnn = torch.backends.cudnn
    wanted = cudnn.allow_tf32
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = wanted


@contextmanager
def full_float32(device_type: str) -> Generator[None, None, None]:
    """Switch off autocast and faster, rougher arithmetic (TF32, bf16) on one kind of device; not in exported graphs.

    Args:
        device_type (str): ``"cpu"`` or ``"cuda"``.
    """
    if _becomes_a_graph():
        yield
        return
    wanted = torch.get_float32_matmul_precision()
    with torch.autocast(device_type, enabled=False), full_convolutions():
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(wanted)


def _becomes_a_graph() -> bool:
    return torch.compiler.is_exporting() or torch.jit.is_tracing()
