# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Full float32 where a difference of large numbers must not lose its digits."""

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32(device_type: str) -> Generator[None, None, None]:
    """Switch off autocast and faster, rougher matrix products (TF32, bf16) on one kind of device.

    An exported graph is left alone: its runtime has switches of its own.

    Args:
        device_type (str): ``"cpu"`` or ``"cuda"``.
    """
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        yield
        return
    wanted = torch.get_float32_matmul_precision()
    with torch.autocast(device_type, enabled=False):
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(wanted)
