# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The ``anomalib-vmpfd`` script: anomalib's command line with the plugin registered, and commands of its own."""

import argparse
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

USAGE = """\
usage: anomalib-vmpfd COMMAND ...

  sample --root DIR         write generated sample parts in the layout of MVTec AD
  benchmark --config FILE   train and compare models side by side, with a report
  calibrate --ckpt_path FILE --normals DIR
                            other thresholds for a trained model, from normal images
  doctor                    what this machine has, to paste into a bug report
  check-export --ckpt_path FILE --export FILE --data DIR
                            compare an export's verdicts with its checkpoint's
  inspect --ckpt_path FILE  open a page on this machine: images, heatmaps, thresholds
  tile --data DIR --output DIR
                            cut large images into tiles, to train on
  predict-tiles --model FILE --data DIR --output DIR
                            judge large images in tiles

Every other command is anomalib's own, with the models and datamodules of this package registered, also where the
autoload hook is off. A --ckpt_path of this package's models needs no --model:
"""

# imported when they are asked for: --help must not take seconds
COMMANDS = {
    "benchmark": ("anomalib_vmpfd.benchmark.cli", "main"),
    "calibrate": ("anomalib_vmpfd.decide.recalibrate_command", "main"),
    "check-export": ("anomalib_vmpfd.decide.export_check", "main"),
    "doctor": ("anomalib_vmpfd.decide.doctor", "main"),
    "inspect": ("anomalib_vmpfd.inspection.command", "main"),
    "predict-tiles": ("anomalib_vmpfd.decide.tiles_command", "main_predict"),
    "tile": ("anomalib_vmpfd.decide.tiles_command", "main_tile"),
}


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
    if command in COMMANDS:
        module, function = COMMANDS[command]
        with _any_printable_path():
            return getattr(import_module(module), function)(argv[1:])
    if command in {"-h", "--help"}:
        sys.stdout.write(USAGE)

    from anomalib_vmpfd.registration import register

    register()
    from anomalib.cli.cli import AnomalibCLI, configure_logger

    configure_logger()
    with _any_printable_path():
        AnomalibCLI(args=_with_model(argv) or ["--help"])
    return 0


@contextmanager
def _any_printable_path() -> Generator[None, None, None]:
    """Let anomalib take folders whose names are not ASCII; it refuses them as if they could not be printed."""
    from anomalib.data.utils import path

    check = path.contains_non_printable_characters
    path.contains_non_printable_characters = lambda given: not str(given).isprintable()
    try:
        yield
    finally:
        path.contains_non_printable_characters = check


def _with_model(argv: list[str]) -> list[str]:
    """Name the model of ``--ckpt_path`` where no ``--model`` is given; a checkpoint says by itself what it is."""
    given = dict.fromkeys(word.split("=", 1)[0] for word in argv)
    if "--ckpt_path" not in given or "--model" in given or "--config" in given or "-c" in given:
        return argv
    # `--ckpt_path X` and `--ckpt_path=X`
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--ckpt_path=") else [word])]
    position = words.index("--ckpt_path") + 1
    path = Path(words[position]) if position < len(words) else None
    if path is None or not path.is_file():
        return argv

    from anomalib_vmpfd.engine.rebuild import model_of

    name = model_of(path)
    return argv if name is None else [argv[0], "--model", name, *argv[1:]]


def _sample(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("anomalib-vmpfd sample", description="Write generated sample parts.")
    parser.add_argument("--root", type=Path, default=Path("datasets/sample"), help="folder for the data (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator (%(default)s)")
    args = parser.parse_args(argv)

    from anomalib_vmpfd.data.sample import make_sample

    root = make_sample(args.root, seed=args.seed)
    sys.stdout.write(f"Sample parts are in {root}\n")
    return 0
