# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The record of a run: the key that identifies it, the columns of its row, and what else it returns."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

COLUMNS = (
    "suite", "model", "dataset", "category", "seed", "status",
    "image_AUROC", "image_AP", "image_F1Score", "pixel_AUROC", "pixel_AP", "pixel_F1Score", "pixel_IoU", "AUPRO",
    "threshold", "train_seconds", "train_steps", "latency_ms", "throughput_ips", "peak_memory_mb", "parameters",
    "flops", "checkpoint_mb", "device", "precision", "commit",
    # beyond the fixed part
    "AUPIMO", "image_F1Max", "pixel_F1Max", "pixel_threshold", "train_epochs", "test_seconds", "base_memory_mb",
    "val_split", "image_size", "train_images", "test_images", "threads", "device_name", "date", "python_version",
    "torch_version", "lightning_version", "anomalib_version", "anomalib_vmpfd_version", "settings",
)  # fmt: skip
"""Columns of ``results.csv``. Metrics are fractions between 0 and 1; empty cells are missing values."""

SKIPPED = "skipped: "
"""Begins the status of a run that was not started because its weights are not there; the reason follows."""

METRICS = (
    "image_AUROC", "image_AP", "image_F1Score", "pixel_AUROC", "pixel_AP", "pixel_F1Score", "pixel_IoU", "AUPRO",
    "AUPIMO",
)  # fmt: skip

FPR_LIMIT = 0.3
"""False positive rate up to which AUPRO integrates."""

PIMO_BOUNDS = (1e-5, 1e-4)
"""False positive rates of the normal images between which AUPIMO integrates, on a logarithmic scale."""


class RunKey(NamedTuple):
    """What identifies a run, in the order of the columns of the results file."""

    suite: str
    model: str
    dataset: str
    category: str
    seed: int

    @property
    def stem(self) -> str:
        """str: File name of the run's artifacts, readable and unique for names with any characters."""
        parts = [self.model, self.dataset, self.category, str(self.seed)]
        readable = "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in part) for part in parts)
        return f"{readable[:120]}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:8]}"


@dataclass
class RunResult:
    """What a run returns.

    Attributes:
        row (dict[str, Any]): Columns of the results file.
        predictions (dict[str, Any]): Image scores and curves, plain data for JSON.
        maps (dict[str, Any]): Heatmaps for the gallery, uint8 arrays of at most 128 x 128 cells, with their files.
    """

    row: dict[str, Any]
    predictions: dict[str, Any] = field(default_factory=dict)
    maps: dict[str, Any] = field(default_factory=dict)
