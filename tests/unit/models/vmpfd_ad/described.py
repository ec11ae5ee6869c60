# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Normal images by their descriptors, as branches get them."""

import torch

from anomalib_vmpfd.anomaly.branch import Features


def features(*levels: torch.Tensor) -> Features:
    return Features(torch.zeros(len(levels[0]), 3, 64, 64), levels)


class Described:
    """Batches of descriptors of a single level and the numbers of their images."""

    def __init__(self, descriptors: torch.Tensor, numbers: torch.Tensor | None = None, batch: int = 4) -> None:
        self.descriptors = descriptors
        self.numbers = torch.arange(len(descriptors)) if numbers is None else numbers
        self.batch = batch

    def __len__(self) -> int:
        return len(self.descriptors)

    def __iter__(self):
        for part, numbers in zip(self.descriptors.split(self.batch), self.numbers.split(self.batch), strict=True):
            yield features(part), numbers

    def evenly(self, count: int) -> "Described":
        kept = torch.linspace(0, len(self) - 1, min(count, len(self))).long()
        return Described(self.descriptors[kept], self.numbers[kept], self.batch)
