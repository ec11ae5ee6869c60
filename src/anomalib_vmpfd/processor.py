# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The processor of this machine."""

import platform
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")


def describe_processor() -> str:
    """Name the processor and what decides its speed: torch's instruction set, and bfloat16 in hardware or emulated.

    They are part of the name, not columns: the name stands wherever a device is told, and old files stay as they are.
    """
    facts = _cpuinfo()
    name = facts.get("model name") or platform.processor() or platform.machine()
    known = [torch.backends.cpu.get_cpu_capability()]
    if (native := has_bf16()) is not None:
        known.append("native bf16" if native else "emulated bf16")
    return f"{name} [{', '.join(known)}]"


def has_bf16() -> bool | None:
    """Tell whether the processor computes in bfloat16; ``None`` where the system does not say."""
    facts = _cpuinfo()
    flags = (facts.get("flags") or facts.get("Features", "")).split()  # on x86 and on ARM
    return any(flag.endswith("bf16") for flag in flags) if flags else None  # avx512_bf16, amx_bf16, bf16


def _cpuinfo() -> dict[str, str]:
    """Return what Linux knows of the first processor; empty on other systems."""
    if not CPUINFO.is_file():
        return {}
    first = CPUINFO.read_text(encoding="utf-8").split("\n\n", maxsplit=1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
