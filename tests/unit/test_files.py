# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Tables of measurements keep what a run did not measure."""

import csv

import pytest

from anomalib_vmpfd.files import replace_rows

HELD = [
    {"model": "a", "batch": 1, "ms": 10.0},
    {"model": "a", "batch": 4, "ms": 30.0},
    {"model": "b", "batch": 1, "ms": 5.0},
]


def read(path):
    return [tuple(row.values()) for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "speed" / "latency.csv"
    replace_rows(path, HELD, ("model", "batch"))
    return path


def test_rows_with_the_same_keys_are_replaced_and_others_stay(table):
    replace_rows(table, [{"model": "a", "batch": 4, "ms": 20.0}], ("model", "batch"))
    assert read(table) == [("a", "4", "20.0"), ("a", "1", "10.0"), ("b", "1", "5.0")]


def test_by_one_column_all_rows_of_its_value_are_replaced(table):
    replace_rows(table, [{"model": "a", "batch": 16, "ms": 90.0}], ("model",))
    assert read(table) == [("a", "16", "90.0"), ("b", "1", "5.0")]


def test_without_keys_the_table_is_written_anew(table):
    replace_rows(table, HELD[:1], ())
    assert read(table) == [("a", "1", "10.0")]


def test_rows_of_other_columns_are_of_another_version_and_go(table):
    replace_rows(table, [{"model": "c", "batch": 1, "ms": 1.0, "threads": 2}], ("model", "batch"))
    assert read(table) == [("c", "1", "1.0", "2")]
