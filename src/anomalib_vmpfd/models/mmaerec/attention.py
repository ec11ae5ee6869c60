# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Attention over memory and edge features, added up (section 2.4, figure 5, table 6)."""

from collections.abc import Callable

from timm.layers import SEModule
from timm.layers.cbam import CbamModule
from timm.layers.coord_attn import CoordAttn
from torch import nn

ATTENTIONS: dict[str, Callable[[int], nn.Module]] = {
    "coordinate": CoordAttn,
    "cbam": CbamModule,
    "se": SEModule,
    "none": lambda _: nn.Identity(),
}
