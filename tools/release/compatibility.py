# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Resolve the lowest and the highest supported versions for every Python, and write one row each to a CSV.

    pip install uv
    python tools/release/compatibility.py
    python tools/release/compatibility.py --install 3.10:lowest 3.13:highest --environments build/compatibility

``uv pip compile`` asks the package index and installs nothing: every build of torch takes some gigabytes. What
``--install`` names is installed, each into an environment of its own, and tested there, as are the versions of this
environment: the package is imported, the contracts are held against the versions, and a training must learn.
"lowest" takes the lowest version of what ``pyproject.toml`` names and the highest of what that pulls in.
"""

import argparse
import csv
import json
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
PACKAGES = (
    "anomalib", "lightning", "torch", "torchvision", "torchmetrics", "timm", "jsonargparse", "numpy", "kornia",
    "safetensors",
)  # fmt: skip
IMPORT = "from anomalib.models import get_model; import anomalib_vmpfd; get_model('VmpfdAd'); print('ok')"
TESTS = ("tests/reliability/test_contracts.py", "tests/integration/test_vmpfd_ad.py")
RESOLUTIONS = {"lowest": "lowest-direct", "highest": "highest"}
INSTALLED = (
    "import json, importlib.metadata as m; print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
)


def resolve(python: str, resolution: str) -> dict[str, str]:
    """Versions that the index has for a Python, or why there are none."""
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", python]
    outcome = run(Path(sys.executable), "-m", *command, "--resolution", resolution, "pyproject.toml")
    lines = [line.split(";")[0].strip() for line in outcome.stdout.splitlines()]
    found = dict(line.split("==") for line in lines if "==" in line)
    reason = "" if outcome.returncode == 0 else " ".join(outcome.stderr.split())[:300]
    chosen = {name: found.get(name, "") for name in PACKAGES}
    return {"resolves": "no" if reason else "yes", **chosen, "imports": "not tried", "message": reason}


def installed(python: Path) -> dict[str, str]:
    """Versions of an environment, imported and tested."""
    here = json.loads(run(python, "-c", INSTALLED).stdout)
    versions = {name: here.get(name, "") for name in PACKAGES}
    outcomes = [run(python, "-c", IMPORT), run(python, "-m", "pytest", "-q", "--no-header", *TESTS)]
    said = [(outcome.stdout.strip().splitlines() or ["no output"])[-1] for outcome in outcomes]
    imports = "no" if any(outcome.returncode for outcome in outcomes) else "yes"
    return {"resolves": "yes", **versions, "imports": imports, "message": f"contracts and training: {said[1]}"}


def install(python: str, versions: str, folder: Path) -> Path:
    """Make an environment with the lowest or highest versions and return its interpreter."""
    place = folder / f"{python}-{versions}"
    inside = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    uv = (Path(sys.executable), "-m", "uv")
    wanted = ("--resolution", RESOLUTIONS[versions], "--editable", ".", "pytest>=8", "hypothesis>=6.100")
    steps = (
        (*uv, "venv", "--quiet", "--allow-existing", "--python", python, str(place)),
        (*uv, "pip", "install", "--quiet", "--python", str(inside), *wanted),
    )
    for step in steps:
        outcome = run(*step)
        if outcome.returncode:
            msg = f"Python {python} with {versions} versions cannot be installed: {outcome.stderr.strip()}"
            raise SystemExit(msg)
    return inside


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command here and keep what it says."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "results/reliability/compatibility.csv")
    parser.add_argument("--install", nargs="*", default=[], metavar="PYTHON:VERSIONS")
    parser.add_argument("--environments", type=Path, default=ROOT / "build/compatibility")
    arguments = parser.parse_args()
    out = arguments.out
    rows = []
    for python in PYTHONS:
        for versions in RESOLUTIONS:
            row = resolve(python, RESOLUTIONS[versions])
            if f"{python}:{versions}" in arguments.install:
                row = installed(install(python, versions, arguments.environments.resolve()))
            rows.append({"python": python, "versions": versions, **row})
    rows.append({"python": platform.python_version(), "versions": "installed", **installed(Path(sys.executable))})
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(" ".join(f"{value}" for value in row.values() if value))


if __name__ == "__main__":
    main()
