# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The commands of the `anomalib-vmpfd` script; those that anomalib serves are in ``tests/integration``."""

import pytest

from anomalib_vmpfd.cli import main


@pytest.mark.parametrize("command", ["sample", "benchmark"])
def test_own_commands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also `benchmark`, a name that anomalib has too, is the plugin's own."""
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: anomalib-vmpfd {command}" in capsys.readouterr().out
