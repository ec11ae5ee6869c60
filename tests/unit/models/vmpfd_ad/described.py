# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Normal images by their descriptors alone, as branches learn from them."""

from collections.abc import Iterator

import torch
from torch import Tensor

from anomalib_vmpfd.anomaly.branch import Features


def seen(*levels: Tensor) -> Features:
    """What a branch that reads no encoder looks at; descriptors of each level, finest first."""
    return Features(None, levels)


class Described:
    """Normal images by their descriptors.

    Args:
        *levels (Tensor): Descriptors of each level, ``(N, C, h, w)``.
        numbers (Tensor | None): Numbers of the images, from 0 by default.
        batch (int): Images in a batch.
    """

    def __init__(self, *levels: Tensor, numbers: Tensor | None = None, batch: int = 4) -> None:
        self.levels = levels
        self.numbers = torch.arange(len(levels[0])) if numbers is None else numbers
        self.batch = batch

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[tuple[Features, Tensor]]:
        for start in range(0, len(self), self.batch):
            part = slice(start, start + self.batch)
            yield seen(*(level[part] for level in self.levels)), self.numbers[part]

    def evenly(self, count: int) -> "Described":
        kept = torch.linspace(0, len(self) - 1, min(count, len(self))).long()
        return Described(*(level[kept] for level in self.levels), numbers=self.numbers[kept], batch=self.batch)
