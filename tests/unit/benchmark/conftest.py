# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A finished suite whose right answers are known."""

from pathlib import Path

import numpy as np
import pytest
from by_hand import HOSTILE, Finished, predictions, row
from PIL import Image

from anomalib_vmpfd.benchmark.records import RunKey, RunResult
from anomalib_vmpfd.benchmark.results import Results
from anomalib_vmpfd.benchmark.suite import DatasetEntry, ModelEntry, Suite


@pytest.fixture
def finished(tmp_path: Path) -> Finished:
    """A suite of this test alone."""
    return _finish(tmp_path)


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A suite for tests that only look."""
    return _finish(tmp_path_factory.mktemp("finished"))


def _finish(folder: Path) -> Finished:
    """Three models, one of them with a hostile name, on two categories; one run failed.

    Of model A, ``good/1.png`` of ``nut`` is the worst false alarm and ``crack/1.png`` the worst miss.
    """
    data = folder / "data"
    files = []
    for kind in ("good", "crack", HOSTILE.replace("/", "")):
        for index in range(3):
            file = data / kind / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((48, 64, 3), 60 + 50 * index, np.uint8)).save(file)
            files.append(file)
    masks = ["" if file.parent.name == "good" else str(files[0]) for file in files]
    suite = Suite(
        suite="by_hand",
        models=[ModelEntry(label, "x") for label in ("A", HOSTILE, "B")],
        datasets=[
            DatasetEntry("Parts", "x", ["bolt", "nut"], gallery=True),
            DatasetEntry("Secret", "x", ["mould"]),
        ],
    )
    results = Results(folder / "results" / suite.suite)
    scores = {
        "A": [0.1, 0.9, 0.2, 0.8, 0.05, 0.7, 0.6, 0.9, 0.7],
        HOSTILE: [0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.4, 0.9, 0.9],
        "B": [0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9],
    }
    values = {"A": 0.95, HOSTILE: 0.85, "B": 1.0}
    for dataset, category in (("Parts", "bolt"), ("Parts", "nut"), ("Secret", "mould")):
        for model in scores:
            key = RunKey(suite.suite, model, dataset, category, 0)
            if (model, category) == ("B", "bolt"):
                error = f"failed: ValueError: {HOSTILE}"
                results.record(RunResult({**key._asdict(), "status": error, "settings": "abc"}))
                continue
            maps = np.zeros((len(files), 12, 16), np.uint8) + np.arange(16, dtype=np.uint8) * 16
            results.record(
                RunResult(
                    row(key, image_AUROC=values[model], latency_ms=100.0 * (1.01 - values[model])),
                    predictions(files, scores[model]),
                    {"maps": maps, "files": [str(file) for file in files], "masks": masks},
                ),
            )
    return Finished(suite, results, data)
