# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The ``anomalib-vmpfd`` script: anomalib's command line with the plugin registered, and commands of its own."""

import argparse
import sys
from pathlib import Path

USAGE = """\
usage: anomalib-vmpfd COMMAND ...

  sample --root DIR         write generated sample parts in the layout of MVTec AD
  benchmark --config FILE   train and compare models side by side, with a report

Every other command is anomalib's own, with VmpfdAd and MVTec registered, also where the autoload hook is off:
"""


def main(argv: list[str] | None = None) -> int:
    """Run a command of the plugin, or anomalib's command line with the plugin registered.

    Args:
        argv (list[str] | None, optional): Arguments after the script's name. Defaults to ``None``: ``sys.argv[1:]``.

    Returns:
        int: Exit status, 0 when all went well.
    """
    argv = sys.argv[1:] if argv is None else argv
    command = argv[0] if argv else "--help"
    if command == "sample":
        return _sample(argv[1:])
    if command == "benchmark":
        from anomalib_vmpfd.benchmark.cli import main as benchmark

        return benchmark(argv[1:])
    if command in {"-h", "--help"}:
        sys.stdout.write(USAGE)

    from anomalib_vmpfd.registration import register

    register()
    from anomalib.cli.cli import AnomalibCLI, configure_logger

    configure_logger()
    AnomalibCLI(args=argv or ["--help"])
    return 0


def _sample(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("anomalib-vmpfd sample", description="Write generated sample parts.")
    parser.add_argument("--root", type=Path, default=Path("datasets/sample"), help="folder for the data (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator (%(default)s)")
    args = parser.parse_args(argv)

    from anomalib_vmpfd.data.sample import make_sample

    root = make_sample(args.root, seed=args.seed)
    sys.stdout.write(f"Sample parts are in {root}\n")
    return 0
