# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Variants of anomalib's models for machines on which the originals would take too long."""

import torch
from anomalib.models import Patchcore

from anomalib_vmpfd.nn.coreset import farthest_points


class QuickCoresetPatchcore(Patchcore):
    """Patchcore whose coreset is selected by :func:`farthest_points`; otherwise that of anomalib.

    The same greedy selection from the same patch features, by distances in a projection to 32 instead of about 300
    channels. On two CPU cores the selection of 10 % of 300,000 patch features takes minutes instead of hours.
    """

    def fit(self) -> None:
        """Select the memory bank from the collected patch features."""
        cells = torch.vstack(self.model.embedding_store)
        self.model.embedding_store.clear()
        self.model.memory_bank = cells[farthest_points(cells, int(self.coreset_sampling_ratio * len(cells)))]
