# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Run the tests that compare numbers under every instruction set of this processor.

    python tools/release/instruction_sets.py
    python tools/release/instruction_sets.py --levels all -- -x

A processor rounds as its vectors are long, and multiplies bfloat16 where it can: what passes on one may fail on the
next. PyTorch, oneDNN and MKL are held to AVX2 and to AVX-512; ``make test`` runs with what there is, bf16 and AMX
included. A level that the processor lacks is left out, for PyTorch would run into instructions that do not exist; where
AVX2 is the highest, PyTorch's plain code (AVX without FMA in oneDNN) stands for another arithmetic. There are no levels
for other processors than x86. Arguments after ``--`` go to pytest.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
# what torch.backends.cpu.get_cpu_capability() says: ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA, MKL_ENABLE_INSTRUCTIONS
LEVELS = {
    "DEFAULT": ("default", "AVX", "SSE4_2"),
    "AVX2": ("avx2", "AVX2", "AVX2"),
    "AVX512": ("avx512", "AVX512_CORE", "AVX512"),
}
VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


def present(highest: str) -> dict[str, dict[str, str]]:
    """Environment of the levels to test besides the processor's own, by what PyTorch calls its highest one."""
    if highest not in LEVELS:  # no x86
        return {}
    index = list(LEVELS).index(highest)
    names = list(LEVELS)[max(0, index - 1) : index]
    if highest == "AVX512":
        names.append(highest)  # without bf16 and AMX
    return {name: dict(zip(VARIABLES, LEVELS[name], strict=True)) for name in names}


def main() -> None:
    """Test level by level and name those that fail."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    levels = present(torch.backends.cpu.get_cpu_capability())
    parser.add_argument("--levels", nargs="+", choices=levels, default=levels, help="all that there are without it")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest")
    arguments = parser.parse_args()
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.numeric" in path.read_text("utf-8")]
    options = ["-m", "numeric", "-q", "--durations=3", "--numprocesses=auto", "--dist=loadfile"]
    command = [sys.executable, "-m", "pytest", *options, *map(str, files), *arguments.pytest]
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    failed = []
    for name in arguments.levels:
        variables = levels[name]
        print(f"{name}: {' '.join('='.join(pair) for pair in variables.items())}", flush=True)
        start = time.perf_counter()
        # a process a core, as `make test` has it
        environment = clean | variables | {"OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode  # noqa: S603
        print(f"{name}: {'passed' if code == 0 else 'failed'} in {time.perf_counter() - start:.0f} s", flush=True)
        failed += [name] * (code != 0)
    if failed:
        sys.exit(f"Numbers differ too much under {', '.join(failed)}.")


if __name__ == "__main__":
    main()
