# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Single random numbers from torch's generator, so that one seed governs all that is synthesised."""

import torch


def uniform(low: float, high: float) -> float:
    """A number between ``low`` and ``high``."""
    return low + (high - low) * float(torch.rand(()))


def choice(count: int) -> int:
    """An index below ``count``."""
    return int(torch.randint(count, ()))
