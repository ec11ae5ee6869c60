# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Tables compare models at the seeds that all have, and are those that the result files give."""

import runpy

import pandas as pd


def row(model: str, category: str, seed: int, value: float) -> dict:
    metrics = dict.fromkeys(("image_AUROC", "pixel_AUROC", "AUPRO"), value)
    costs = {"train_seconds": 10.0, "train_steps": 5}
    conditions = {"device": "cpu", "device_name": "a CPU", "precision": "32-true", "commit": "a" * 12}
    return {"model": model, "category": category, "seed": seed, "status": "ok"} | metrics | costs | conditions


def test_models_compare_at_common_seeds_and_more_seeds_give_a_deviation(repository):
    accuracy = runpy.run_path(str(repository / "tools" / "release" / "accuracy_tables.py"))["accuracy"]
    rows = [row("ours", c, seed, 0.9 + seed / 100) for c in ("screw", "tile") for seed in (0, 1, 2)]
    rows += [row("ours", "screw", 3, 0.1)]  # a seed that is not finished
    rows += [row("theirs", c, 0, 0.8) for c in ("screw", "tile")]

    table = accuracy("suite", pd.DataFrame(rows))

    assert "| ours | 90.0 / 90.0 / 90.0 | 90.0 / 90.0 / 90.0 | 90.0 / 90.0 / 90.0 |" in table
    assert "| theirs | 80.0 / 80.0 / 80.0 |" in table
    assert "Mean of ours over seeds 0, 1, 2: 91.0 ± 1.0 / 91.0 ± 1.0 / 91.0 ± 1.0." in table


def test_few_defects_are_means_over_their_draws(repository):
    few_defects = runpy.run_path(str(repository / "tools" / "release" / "accuracy_tables.py"))["few_defects"]
    rows = [row("Prn, 10 known", "screw", seed, 0.9 + seed / 100) | {"pixel_AP": 0.5 + seed / 10} for seed in (0, 1, 2)]
    rows += [
        row("Patchcore", "screw", 0, 0.8) | {"pixel_AP": 0.3},
        row("Patchcore", "tire", 0, 0.7) | {"pixel_AP": 0.2},
    ]
    table = few_defects("few_defects", pd.DataFrame(rows))
    assert "| Prn, 10 known | 91.0 / 60.0 / 91.0 (3) | - | 10 (5) |" in table
    assert "| Patchcore | 80.0 / 30.0 / 80.0 (1) | 70.0 / 20.0 / 70.0 (1) | 10 (5) |" in table


def test_the_committed_tables_are_those_of_the_result_files(repository, monkeypatch):
    monkeypatch.setattr("sys.argv", ["fill_tables.py", "--check"])
    runpy.run_path(str(repository / "tools" / "release" / "fill_tables.py"), run_name="__main__")
