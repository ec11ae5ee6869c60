# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Runs in processes of their own: the death of a process and errors are rows."""

import os
import signal

from anomalib.models import EfficientAd
from specs import spec

from anomalib_vmpfd.benchmark.run.isolation import run_isolated


class Deadly(EfficientAd):
    """A model whose construction ends the process, as a lack of memory does."""

    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_whose_process_dies_is_a_row(tmp_path, few):
    result = run_isolated(spec(model=f"{__name__}.Deadly", data_args={"root": str(few)}), tmp_path / "run.log")
    assert result.row["status"] == "failed: the process was ended by SIGKILL, perhaps for lack of memory"
    assert result.row["model"] == "Model"


def test_the_log_of_a_failed_run_holds_its_traceback(tmp_path):
    result = run_isolated(spec(model="NoSuchModel"), tmp_path / "run.log")
    assert result.row["status"].startswith("failed: AttributeError")
    assert "NoSuchModel" in result.row["status"]
    assert "Traceback" in (tmp_path / "run.log").read_text(encoding="utf-8")
