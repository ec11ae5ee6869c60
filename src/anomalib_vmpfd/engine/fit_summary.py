# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The summary that is logged at the end of a training: thresholds, checkpoint and the command to predict with it."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from .calibration import fpr_interval

if TYPE_CHECKING:
    from anomalib.models import AnomalibModule


def log_fit_summary(module: "AnomalibModule", normals: int = 0) -> None:
    """Log the thresholds, the paths of checkpoint and pictures and the next command; once in a distributed training.

    Args:
        module (AnomalibModule): A model whose training has ended, still attached to its trainer.
        normals (int): Number of normals that gave the thresholds. Defaults to ``0``: not known.
    """
    trainer = module.trainer
    lines = [f"{type(module).__name__} is trained: {trainer.current_epoch} epochs, {trainer.global_step} steps."]
    post_processor = module.post_processor
    for kind, rate_name, meaning in (
        ("image", "image_fpr", "false-positive rate"),
        ("pixel", "mask_fpr", "share of masks with any pixel"),
    ):
        threshold = float(getattr(post_processor, f"{kind}_threshold", float("nan")))
        if threshold == threshold:  # noqa: PLR0124 - not calibrated
            rate = getattr(post_processor, rate_name, None)
            reason = ""
            if rate is not None and getattr(post_processor, "threshold", None) == "normals":
                reason = f", for a {meaning} of {rate:g} on normals"
                if normals > 1:
                    low, high = fpr_interval(normals, rate)
                    reason += f" ({low:.2g} to {high:.2g} with 95 %, from {normals} of them)"
            lines.append(f"  {kind} threshold  {threshold:.4f} (0.5 after normalisation){reason}")
    checkpoint = getattr(trainer.checkpoint_callback, "best_model_path", "")
    if checkpoint:
        path = _short(checkpoint)
        lines += [
            f"  checkpoint       {path}",
            f"  next             {next_command(module, path)}",
            f"  pictures         of tests: {_short(Path(trainer.default_root_dir) / 'images')}",
        ]
    rank_zero_info("\n".join(lines))


def next_command(module: "AnomalibModule", checkpoint: str) -> str:
    """Command that predicts with a checkpoint, which describes the model by itself."""
    words = ["anomalib", "predict", "--model", type(module).__name__, "--ckpt_path", checkpoint]
    return shlex.join(words) + " --data <image or folder>"


def _short(path: str | Path) -> str:
    """The path relative to the working directory, if it is below that."""
    path = Path(path).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
