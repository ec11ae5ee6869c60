# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""anomalib's models where a suite on a small machine could not afford them as they are."""

import torch
from anomalib.models import Patchcore

from anomalib_vmpfd.nn.coreset import farthest_points


class QuickCoresetPatchcore(Patchcore):
    """Patchcore whose coreset is chosen by :func:`farthest_points`, everything else anomalib's.

    The same greedy choice over the same cells, by distances in a projection of 32 channels instead of some 300. On two
    CPU cores the choice of 10 % of the 300,000 cells of one set takes minutes and not hours.
    """

    def fit(self) -> None:
        """Choose the memory bank among the collected cells."""
        cells = torch.vstack(self.model.embedding_store)
        self.model.embedding_store.clear()
        self.model.memory_bank = cells[farthest_points(cells, int(self.coreset_sampling_ratio * len(cells)))]
