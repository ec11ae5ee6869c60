# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Keys of runs as file names."""

from pathlib import Path

from anomalib_vmpfd.benchmark.records import RunKey


def test_file_names_stay_apart_and_inside_the_folder():
    names = ["a/b", "a_b", "a b", "../a", "a" * 300, "ä", "<b>"]
    stems = [RunKey("s", name, "d", "c", 0).stem for name in names]
    assert len(set(stems)) == len(names)
    assert all(Path(stem).name == stem and len(stem) < 150 for stem in stems)
