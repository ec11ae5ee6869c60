# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The command that a training ends with."""

import shlex
from pathlib import Path

from anomalib.cli.cli import AnomalibCLI

from anomalib_vmpfd import VmpfdAd, register
from anomalib_vmpfd.engine.fit_summary import next_command


def test_the_next_command_builds_the_same_model():
    """Parsed by anomalib's own command line."""
    register()
    given = {"image_size": (64, 96), "dim": 32, "branches": "density", "map_weights": (1.0, 0.0), "train_cells": None}
    model = VmpfdAd(**given)
    command = next_command(model, "a folder/model.ckpt")
    assert command.endswith(" --ckpt_path 'a folder/model.ckpt' --data <image or folder>")
    words = shlex.split(command.replace(" --data <image or folder>", " --data parts"))
    assert words[0] == "anomalib"
    cli = AnomalibCLI(args=["predict", "--model", "VmpfdAd", "--data", "parts"], run=False)
    parsed = cli.parser.parse_args(words[1:]).predict.model.init_args
    expected = {name: list(v) if isinstance(v, tuple) else v for name, v in model.hparams.items() if name in parsed}
    built = {name: list(v) if isinstance(v, tuple) else v for name, v in parsed.items() if name in expected}
    assert len(built) > 30
    assert built == expected
    assert Path("a folder/model.ckpt") == Path(cli.parser.parse_args(words[1:]).predict.ckpt_path)
