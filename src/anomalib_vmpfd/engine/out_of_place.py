# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Activations that write into their input, switched off for an export."""

from collections.abc import Generator
from contextlib import contextmanager

from torch import nn


@contextmanager
def out_of_place(module: nn.Module) -> Generator[None, None, None]:
    """Let activations write into tensors of their own: an export takes half the time, and gives the same graph.

    ONNX knows ``hardtanh``, but not its in-place form, which torch would trace down to comparisons, layer by layer.

    Args:
        module (nn.Module): Whose submodules' ``inplace`` is false inside.
    """
    changed = [each for each in module.modules() if getattr(each, "inplace", False)]
    for each in changed:
        each.inplace = False
    try:
        yield
    finally:
        for each in changed:
            each.inplace = True
