# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A suite with results made by hand, whose right answers are known."""

from dataclasses import dataclass
from pathlib import Path

from anomalib_vmpfd.benchmark.records import METRICS, RunKey
from anomalib_vmpfd.benchmark.report.summary import COSTS
from anomalib_vmpfd.benchmark.results import Results
from anomalib_vmpfd.benchmark.suite import Suite

# What a careless author or an attacker may call a thing.
HOSTILE = '<img src=x onerror="window.pwned=1">|"\'&{{7*7}}'


@dataclass
class Finished:
    """A suite, its results and where its pictures are."""

    suite: Suite
    results: Results
    data: Path


def row(key: RunKey, **values: object) -> dict[str, object]:
    """A finished run with plausible values."""
    plausible = {
        "status": "ok",
        **dict(zip(METRICS, (0.9, 0.8, 0.7, 0.95, 0.5, 0.4, 0.25, 0.85, 0.3), strict=True)),
        **dict(zip(COSTS, (12.0, 100, 20.0, 60.0, 900.0, 600.0, 8_000_000, 76_000_000_000, 32.0), strict=True)),
        "threshold": 0.5,
        "device": "cpu",
        "precision": "32-true",
        "commit": "0123456789ab",
        "val_split": "from_train",
        "image_size": "64x64",
        "settings": "abc",
    }
    return {**key._asdict(), **plausible, **values}


def predictions(files: list[Path], scores: list[float]) -> dict[str, object]:
    """Scores of a run with threshold 0.5."""
    labels = [int(file.parent.name != "good") for file in files]
    rates = [[0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0]]
    return {
        "images": [f"{file.parent.name}/{file.name}" for file in files],
        "labels": labels,
        "scores": scores,
        "decisions": [int(score > 0.5) for score in scores],
        "threshold": 0.5,
        "curves": {"image_roc": rates, "pixel_roc": rates, "pro": rates},
        "losses": {"loss": [2.0, 1.0, 0.5]},
    }
