# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Rows on the disk: both files say the same, and outlive what cuts them."""

import json
from pathlib import Path

import pandas as pd
import pytest

from anomalib_vmpfd.predictions.row_files import RowFiles

ROWS = [
    {"path": 'parts/Prüf, "1".png', "score": 0.25, "label": "normal", "regions": []},
    {"path": "部品/2.png", "score": 0.75, "label": "anomalous", "regions": [{"box": [1, 2, 3, 4], "area": 4}]},
]


def test_both_files_hold_the_rows_as_soon_as_they_are_appended(tmp_path):
    files = RowFiles(tmp_path / "new")
    for count, row in enumerate(ROWS, 1):
        files.append([row])
        assert [json.loads(line) for line in files.jsonl.read_text("utf-8").splitlines()] == ROWS[:count]
        table = pd.read_csv(files.csv)
        assert table.drop(columns="regions").to_dict("records") == [
            {key: value for key, value in each.items() if key != "regions"} for each in ROWS[:count]
        ]
        assert [json.loads(text) for text in table.regions] == [each["regions"] for each in ROWS[:count]]


def test_a_new_run_replaces_the_rows_and_a_resumed_one_keeps_the_whole_ones(tmp_path):
    RowFiles(tmp_path).append(ROWS)
    files = RowFiles(tmp_path)
    files.jsonl.write_bytes(files.jsonl.read_bytes()[:-9])  # cut in the last row
    resumed = RowFiles(tmp_path, resume=True)
    assert resumed.kept == ROWS[:1]
    resumed.append(ROWS[1:])
    assert [json.loads(line) for line in resumed.jsonl.read_text("utf-8").splitlines()] == ROWS
    assert len(pd.read_csv(resumed.csv)) == 2
    RowFiles(tmp_path).append(ROWS[:1])
    assert len(pd.read_csv(resumed.csv)) == len(resumed.jsonl.read_text("utf-8").splitlines()) == 1


def test_a_damaged_row_is_named_and_left(tmp_path):
    files = RowFiles(tmp_path)
    files.append(ROWS)
    damaged = files.jsonl.read_text("utf-8").replace('"score"', "score", 1)
    files.jsonl.write_text(damaged, "utf-8")
    with pytest.raises(ValueError, match=r"predictions\.jsonl, line 1, is no row; move"):
        RowFiles(tmp_path, resume=True)
    assert files.jsonl.read_text("utf-8") == damaged


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux that is always full")
def test_a_full_disk_is_said_and_the_rows_before_stay(tmp_path):
    files = RowFiles(tmp_path)
    files.append(ROWS[:1])
    before = files.jsonl.read_text("utf-8")
    files.csv.unlink()
    files.csv.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"predictions\.csv could not be written to \(No space left.*with resume"):
        files.append(ROWS[1:])
    assert files.jsonl.read_text("utf-8").startswith(before)
