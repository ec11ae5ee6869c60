# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What a training says at its end."""

import logging
import shlex
from pathlib import Path
from types import SimpleNamespace

import torch
from anomalib.cli.cli import AnomalibCLI
from anomalib.data import InferenceBatch

from anomalib_vmpfd import VmpfdAd, register
from anomalib_vmpfd.engine.calibration import fpr_interval
from anomalib_vmpfd.engine.fit_summary import log_fit_summary, next_command

GIVEN = {"image_size": (64, 96), "density_args": {"num_components": 8}, "reconstruction": None, "image_fpr": 0.1}


def test_the_next_command_is_one_of_anomalib_and_repeats_no_argument():
    register()
    command = next_command(VmpfdAd(**GIVEN), "a folder/model.ckpt")
    assert command == "anomalib predict --model VmpfdAd --ckpt_path 'a folder/model.ckpt' --data <image or folder>"
    words = shlex.split(command.replace("<image or folder>", "parts"))
    parsed = AnomalibCLI(args=words[1:], run=False).config.predict
    assert parsed.model.class_path == "anomalib_vmpfd.VmpfdAd"
    assert Path(parsed.ckpt_path) == Path("a folder/model.ckpt")


def test_the_summary_names_thresholds_their_rates_and_the_checkpoint(tmp_path, caplog):
    model = VmpfdAd(**GIVEN)
    normals = torch.linspace(0.2, 0.4, 30)
    model.post_processor.calibrate([InferenceBatch(pred_score=normals, anomaly_map=normals.view(30, 1, 1, 1) / 2)])
    model._trainer = SimpleNamespace(
        current_epoch=3,
        global_step=12,
        default_root_dir=tmp_path,
        checkpoint_callback=SimpleNamespace(best_model_path=str(tmp_path / "model.ckpt")),
    )
    with caplog.at_level(logging.INFO):
        log_fit_summary(model, 30)
    assert "VmpfdAd is trained: 3 epochs, 12 steps." in caplog.text
    threshold = float(model.post_processor.image_threshold)
    assert f"image threshold  {threshold:.4f}" in caplog.text
    low, high = fpr_interval(30, 0.1)
    assert f"for a false-positive rate of 0.1 on normals ({low:.2g} to {high:.2g} with 95 %, from 30 of" in caplog.text
    mask = float(model.post_processor.pixel_threshold)
    assert (
        f"pixel threshold  {mask:.4f} (0.5 after normalisation), for a share of masks with any pixel of 0.1"
        in caplog.text
    )
    assert str(tmp_path / "model.ckpt") in caplog.text
    assert str(tmp_path / "images") in caplog.text
