# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""PRN: prototypes, residuals and few known defects."""

from .lightning_model import Prn
from .torch_model import PrnModel

__all__ = ["Prn", "PrnModel"]
