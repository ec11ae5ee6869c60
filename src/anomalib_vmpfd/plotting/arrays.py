# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Tensors as the NumPy arrays that Matplotlib draws."""

import numpy as np
from torch import Tensor


def to_array(values: Tensor | np.ndarray) -> np.ndarray:
    """Convert an image, mask or map for drawing.

    Args:
        values (Tensor | np.ndarray): Tensor of shape ``(C, H, W)`` or ``(H, W)`` on any device, or an array, which is
            returned as it is.

    Returns:
        np.ndarray: Array of shape ``(H, W, C)`` or ``(H, W)``.
    """
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().float().cpu()
    return (values.movedim(0, -1) if values.ndim == 3 else values).numpy()
