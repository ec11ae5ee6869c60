# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Resolve the lowest and the highest supported versions for every Python, and write one row each to a CSV.

    pip install uv
    python scripts/compatibility.py --out results/reliability/compatibility.csv

``uv pip compile`` asks the package index and installs nothing: several builds of torch would take many gigabytes. The
versions of this environment are imported too, in a process of its own, and the tests of contracts run against them.
"lowest" takes the lowest version of what ``pyproject.toml`` names and the highest of what that pulls in.
"""

import argparse
import csv
import platform
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
PACKAGES = (
    "anomalib", "lightning", "torch", "torchvision", "torchmetrics", "timm", "jsonargparse", "numpy", "kornia",
    "safetensors",
)  # fmt: skip
IMPORT = "from anomalib.models import get_model; import anomalib_vmpfd; get_model('VmpfdAd'); print('ok')"


def resolve(python: str, resolution: str) -> dict[str, str]:
    """Versions that the index has for a Python, or why there are none."""
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", python]
    outcome = subprocess.run(  # noqa: S603
        [sys.executable, "-m", *command, "--resolution", resolution, "pyproject.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.split(";")[0].strip() for line in outcome.stdout.splitlines()]
    found = dict(line.split("==") for line in lines if "==" in line)
    reason = "" if outcome.returncode == 0 else " ".join(outcome.stderr.split())[:300]
    chosen = {name: found.get(name, "") for name in PACKAGES}
    return {"resolves": "no" if reason else "yes", **chosen, "imports": "not tried", "message": reason}


def installed() -> dict[str, str]:
    """Versions of this environment, imported and held against the contracts."""
    here = {d.metadata["Name"].lower(): d.version for d in distributions()}
    versions = {name: here.get(name, "") for name in PACKAGES}
    commands = ([sys.executable, "-c", IMPORT], [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", CONTRACTS])
    outcomes = [subprocess.run(c, cwd=ROOT, capture_output=True, text=True, check=False) for c in commands]  # noqa: S603
    said = [(outcome.stdout.strip().splitlines() or ["no output"])[-1] for outcome in outcomes]
    imports = "no" if any(outcome.returncode for outcome in outcomes) else "yes"
    return {"resolves": "yes", **versions, "imports": imports, "message": f"contracts: {said[1]}"}


CONTRACTS = "tests/reliability/test_contracts.py"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "results/reliability/compatibility.csv")
    out = parser.parse_args().out
    rows = [
        {"python": python, "versions": label, **resolve(python, resolution)}
        for python in PYTHONS
        for label, resolution in (("lowest", "lowest-direct"), ("highest", "highest"))
    ]
    rows.append({"python": platform.python_version(), "versions": "installed", **installed()})
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(" ".join(f"{value}" for value in row.values() if value))


if __name__ == "__main__":
    main()
