# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The commands of the `anomalib-vmpfd` script; those that anomalib serves are in ``tests/integration``."""

from pathlib import Path

import pytest
import torch

from anomalib_vmpfd.cli import _with_model, main
from anomalib_vmpfd.engine.rebuild import KEY


@pytest.mark.parametrize("command", ["sample", "benchmark", "calibrate", "doctor", "inspect"])
def test_own_commands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also `benchmark`, a name that anomalib has too, is the plugin's own."""
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: anomalib-vmpfd {command}" in capsys.readouterr().out


@pytest.mark.parametrize("written", [["--ckpt_path", "{}"], ["--ckpt_path={}"]], ids=["two words", "one word"])
def test_a_checkpoint_names_its_model(written: list[str], tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({KEY: {"model": "VmpfdAd", "version": "0.1.0"}, "state_dict": {}}, path)
    words = ["predict", *(word.format(path) for word in written), "--data", "parts"]
    assert _with_model(words) == ["predict", "--model", "VmpfdAd", *words[1:]]
    for given in (["--model", "Padim"], ["--model=Padim"], ["--config", "run.yaml"]):
        assert _with_model([*words, *given]) == [*words, *given], "what is given stays"


def test_other_checkpoints_and_missing_ones_are_left_to_anomalib(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {}}, path)
    for words in (
        ["test", "--ckpt_path", str(path)],
        ["test", "--ckpt_path", "missing"],
        ["test", "--ckpt_path"],
        ["fit"],
    ):
        assert _with_model(words) == words
