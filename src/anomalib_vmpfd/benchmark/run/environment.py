# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The environment of a run: versions, commit and device."""

import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch

from anomalib_vmpfd.processor import describe_processor
from anomalib_vmpfd.version import __version__

PACKAGE = Path(__file__).resolve().parents[2]


def describe(device: torch.device) -> dict[str, str | int]:
    """Describe the software and hardware of this process.

    Args:
        device (torch.device): Where the model runs.

    Returns:
        dict[str, str | int]: Columns of the results file.
    """
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else describe_processor(),
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "date": datetime.now(tz=timezone.utc).strftime("%Y-%m-%d"),
        "python_version": platform.python_version(),
        **{f"{name}_version": version(name) for name in ("torch", "lightning", "anomalib")},
        "anomalib_vmpfd_version": __version__,
    }


def commit() -> str:
    """Return the git commit of this package's source, with a plus sign if its files have uncommitted changes.

    Returns:
        str: Short commit, or an empty string for an installed copy outside its repository.
    """

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=PACKAGE, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603, S607

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # a copy in site-packages may lie inside someone's repository
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
