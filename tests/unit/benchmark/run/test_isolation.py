# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Runs in processes of their own: the death of a process, errors and missing weights are rows."""

import os
import signal

import pytest
from anomalib.models import EfficientAd
from specs import spec

from anomalib_vmpfd.benchmark.run.isolation import CONTEXT, run_isolated


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


@pytest.mark.parametrize(
    "needs",
    [
        {"weights": {"model.teacher": "{}"}},
        {"args": {"descriptor_args": [{"weights": "{}"}]}},
        {"args": {"backbone": "local-dir:{}"}},
    ],
    ids=["weights", "nested argument", "folder of timm"],
)
def test_a_run_without_its_weights_is_skipped_until_they_are_there(tmp_path, monkeypatch, needs):
    def filled(value):
        if isinstance(value, str):
            return value.format(tmp_path / "absent.safetensors")
        return {k: filled(v) for k, v in value.items()} if isinstance(value, dict) else [filled(v) for v in value]

    class Started(Exception):  # noqa: N818
        """A process was to start."""

    def start(**_) -> None:
        raise Started

    monkeypatch.setattr(CONTEXT, "Process", start)
    run = spec(model="NoSuchModel", **filled(needs))
    result = run_isolated(run, tmp_path / "run.log")
    cure = "put it there, or name its folder with --weights FOLDER"
    status = f"skipped: {tmp_path}/absent.safetensors not found; {cure}"
    assert result.row == {**run.key._asdict(), "status": status, "settings": "x"}
    (tmp_path / "absent.safetensors").touch()
    with pytest.raises(Started):
        run_isolated(run, tmp_path / "run.log")
