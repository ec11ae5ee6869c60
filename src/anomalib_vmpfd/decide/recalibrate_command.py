# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-vmpfd calibrate``: other thresholds for a trained model."""

import sys

from .command import run_command
from .recalibration import Recalibration, recalibrate


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv (list[str]): Arguments after ``calibrate``.

    Returns:
        int: 0 when a new checkpoint was written, 2 when it could not be.
    """
    return run_command("calibrate", recalibrate, argv, _written)


def _written(changed: Recalibration) -> int:
    sys.stdout.write(report(changed))
    return 0


def report(changed: Recalibration) -> str:
    """What changed, as text."""
    lines = [f"{'':17}{'before':>10}{'after':>10}"]
    for name, (before, after) in changed.rates.items():
        lines.append(f"{name:17}{before:10g}{after:10g}")
    for name, (before, after) in changed.thresholds.items():
        lines.append(f"{name + ' threshold':17}{before:10.4f}{after:10.4f}")
    for name, (before, after) in changed.alarms.items():
        what = "anomalous" if name == "image" else "any pixel marked"
        lines.append(f"{what:17}{before:10}{after:10}  of these {changed.normals} normal images")
    return "\n".join([*lines, f"{changed.output} is the new checkpoint; the old one is as it was.", ""])
