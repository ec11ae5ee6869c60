# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N803, N806 (A, B, C and D are the names of the field)

"""mamba-ssm's CUDA kernel behind its public function."""

import logging
from functools import cache

from torch import Tensor

logger = logging.getLogger(__name__)


@cache
def is_available() -> bool:
    """Tell whether mamba-ssm's compiled kernel can be imported.

    Any exception counts as a no: an extension built for another torch raises ``ImportError`` with an undefined symbol,
    one built for another GPU raises something else again, and neither may break the pure PyTorch backends.
    """
    try:
        import selective_scan_cuda  # noqa: F401
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # noqa: F401
    except Exception as error:  # noqa: BLE001
        logger.debug("mamba-ssm's selective_scan_cuda is not usable: %s", error)
        return False
    return True


def cuda_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> Tensor:
    """Call mamba-ssm; the kernel wants float32 parameters and one common type for everything that varies with time."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    delta, B, C, z = (None if x is None else x.to(u.dtype) for x in (delta, B, C, z))
    A, D, delta_bias = (None if x is None else x.float() for x in (A, D, delta_bias))
    return selective_scan_fn(u, delta, A, B, C, D=D, z=z, delta_bias=delta_bias, delta_softplus=delta_softplus)
