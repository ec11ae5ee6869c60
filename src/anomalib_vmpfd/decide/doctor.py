# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-vmpfd doctor``: what a bug report needs to say of a machine."""

import argparse
import json
import os
import platform
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch

from anomalib_vmpfd.ops.selective_scan.c_kernel import is_available as c_is_available
from anomalib_vmpfd.ops.selective_scan.cuda import is_available as cuda_is_available
from anomalib_vmpfd.processor import describe_processor
from anomalib_vmpfd.weights.loading import verify_bundled

PACKAGE = "anomalib-vmpfd"
MEMINFO = Path("/proc/meminfo")

Report = dict[str, dict[str, str]]


def main(argv: list[str]) -> int:
    """Print the report.

    Args:
        argv (list[str]): Arguments after ``doctor``.

    Returns:
        int: 0, or 1 where shipped weights are damaged or missing.
    """
    parser = argparse.ArgumentParser(
        "anomalib-vmpfd doctor", description="Say what is installed and what this machine has, for a bug report."
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    report = examine()
    sys.stdout.write(json.dumps(report, indent=2) + "\n" if args.json else as_text(report))
    return int(any(not re.fullmatch(r"[0-9a-f]{64}", found) for found in report["weights"].values()))


def examine() -> Report:
    """Look at packages, processor, runtimes, weights and memory.

    Returns:
        Report: Facts by section and name; no path of this machine is among them.
    """
    return {
        "versions": {
            "python": f"{platform.python_version()} on {platform.platform()}",
            **{name: _version(name) for name in (PACKAGE, *_packages(None))},
        },
        **{
            f"extra {name}": {each: _version(each) for each in _packages(name)}
            for name in ("app", "export", "cuda", "ray")
        },
        "processor": {
            "cpu": describe_processor(),
            "cores": str(os.cpu_count()),
            "torch threads": str(torch.get_num_threads()),
            "float32 products": torch.get_float32_matmul_precision(),
            "gpu": ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count()))) or "none",
        },
        "selective scan": {"cpu": _scan_on_cpu(), "gpu": "mamba-ssm" if cuda_is_available() else "PyTorch"},
        "runtimes": {"ONNX Runtime": _onnxruntime(), "OpenVINO": _openvino()},
        "weights": verify_bundled(),
        "memory": _memory(),
    }


def as_text(report: Report) -> str:
    """The report as plain text to paste."""
    width = max(len(name) for section in report.values() for name in section) + 2
    lines = []
    for title, section in report.items():
        lines += [title, *(f"  {name:{width}}{value}" for name, value in section.items())]
    return "\n".join([*lines, ""])


def _packages(extra: str | None) -> list[str]:
    """Names of the packages that this one, or an extra of it, asks for."""
    asked = []
    for line in requires(PACKAGE) or []:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        of = re.search(r"extra == ['\"](\w+)['\"]", line)
        if (of.group(1) if of else None) == extra and name != PACKAGE:
            asked.append(name)
    return asked


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _scan_on_cpu() -> str:
    return "C kernel" if c_is_available(torch.zeros(1), 16) else "PyTorch"


def _onnxruntime() -> str:
    try:
        import onnxruntime
    except ImportError as error:
        return f"not available ({error})"
    return ", ".join(onnxruntime.get_available_providers())


def _openvino() -> str:
    try:
        import openvino
    except ImportError as error:
        return f"not available ({error})"
    core = openvino.Core()
    return ", ".join(f"{each} (computes in {_precision(core, each)})" for each in core.available_devices) or "no device"


def _precision(core: object, device: str) -> str:
    """What a device computes in of its own accord."""
    try:
        hint = core.get_property(device, "INFERENCE_PRECISION_HINT")  # type: ignore[attr-defined]
    except RuntimeError:
        return "unknown precision"
    return getattr(hint, "type_name", None) or re.sub(r".*'(\w+)'.*", r"\1", str(hint))


def _memory() -> dict[str, str]:
    facts = {"disk free": f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB"}
    if MEMINFO.is_file():
        sizes = dict(line.split(":") for line in MEMINFO.read_text(encoding="utf-8").splitlines())
        for name, key in (("total", "MemTotal"), ("available", "MemAvailable")):
            facts[name] = f"{int(sizes[key].split()[0]) / 2**20:.1f} GiB"
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        facts[f"gpu {index}"] = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    return facts
