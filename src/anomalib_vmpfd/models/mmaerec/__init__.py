# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""MMAERec: reconstruction from memories of normal features and from edges."""

from .lightning_model import Mmaerec
from .torch_model import MmaerecModel

__all__ = ["Mmaerec", "MmaerecModel"]
