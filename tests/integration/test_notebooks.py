# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The notebooks run from a clean kernel in an empty folder, and what is committed of them can be read without one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

REPOSITORY = Path(__file__).parents[2]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


def test_all_are_here():
    names = ["00_quickstart", "01_heatmaps", "02_side_by_side", "03_your_own_folder", "04_inside_the_model"]
    assert [path.stem for path in NOTEBOOKS] == names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_a_clean_kernel(path, tmp_path):
    """By the command that the committed outputs come from."""
    copied = tmp_path / path.name
    shutil.copy(path, copied)
    command = [sys.executable, REPOSITORY / "tools" / "release" / "run_notebooks.py", copied]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr[-3000:]
    notebook, committed = (nbformat.read(file, as_version=4) for file in (copied, path))
    kinds = [[pictures(cell) for cell in n.cells] for n in (notebook, committed)]
    assert kinds[0] == kinds[1], "the committed outputs are of another version of the notebook; run `make notebooks`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_show_pictures_and_nothing_of_the_machine(path):
    notebook = nbformat.read(path, as_version=4)
    assert sum(map(pictures, notebook.cells)) >= 2
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    text = "".join(
        json.dumps({k: v for k, v in output.items() if k != "data"}) + str(output.get("data", {}).get("text/plain", ""))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    for trace in ("/home/", "/root/", "/tmp/", "/Users/", "site-packages", "Warning", "Traceback"):
        assert trace not in text
    assert path.stat().st_size < 1_000_000


def pictures(cell) -> int:
    """Number of pictures among the outputs of a cell."""
    return sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
