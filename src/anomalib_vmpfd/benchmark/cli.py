# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-vmpfd benchmark``: run what is missing of a suite and write its report."""

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

from .records import SKIPPED
from .suite import Suite, load_suite

logger = logging.getLogger(__name__)


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv (list[str]): Arguments after ``benchmark``.

    Returns:
        int: 0 when all went well, 1 when a run failed, 2 when the arguments or the suite file are wrong, or
            results cannot be read or written, 130 when the user stopped it.
    """
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO if args.verbose else logging.WARNING, format="%(message)s")
    try:
        suite = load_suite(args.config)
        suite.root, suite.weights = args.root or suite.root, args.weights or suite.weights
        statuses, written = _benchmark(suite, args)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        sys.stderr.write(f"anomalib-vmpfd benchmark: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. Run the same command again to continue.\n")
        return 130
    skipped = sum(status.startswith(SKIPPED) for status in statuses)
    failed = sum(status != "ok" for status in statuses) - skipped
    counts = f"{len(statuses) - skipped} runs measured, {failed} failed, {skipped} skipped"
    sys.stdout.write(f"{counts}. Report: {', '.join(map(str, written))}\n")
    return 1 if failed else 0


def _benchmark(suite: Suite, args: argparse.Namespace) -> tuple[list[str], list[Path]]:
    folder = args.output / suite.suite
    statuses: list[str] = []
    selected = _select(suite, args.models, args.categories, args.seeds)
    if not args.report_only:
        from .run.runners import run_suite  # imports anomalib, which takes seconds

        statuses = run_suite(selected, folder, force=args.force)
    from .report.write import write_report  # imports pandas and Matplotlib

    return statuses, write_report(suite, folder, licensed=args.gallery)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "anomalib-vmpfd benchmark",
        description="Train and evaluate the models of a suite side by side, and write a report. An "
        "interrupted suite is resumed.",
    )
    parser.add_argument("--config", type=Path, required=True, help="suite file, see configs/benchmark/")
    parser.add_argument("--root", help="folder of the data, in place of the suite's")
    parser.add_argument("--weights", help="folder of local pre-trained weights, in place of the suite's")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of all results (%(default)s)")
    parser.add_argument("--models", nargs="+", metavar="LABEL", help="run only these models")
    parser.add_argument("--categories", nargs="+", metavar="NAME", help="run only these categories")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="seeds, in place of the suite's")
    parser.add_argument("--force", action="store_true", help="repeat runs that have a result")
    parser.add_argument("--gallery", action="store_true", help="also write gallery.html with pictures of all data sets")
    parser.add_argument("--report-only", action="store_true", help="write the report from the existing results")
    parser.add_argument("--verbose", action="store_true", help="log progress")
    return parser


def _select(suite: Suite, models: list[str] | None, categories: list[str] | None, seeds: list[int] | None) -> Suite:
    """Restrict a suite to the models, categories and seeds of the command line."""
    known = {category for dataset in suite.datasets for category in dataset.categories}
    for kind, asked, offered in (
        ("model", models, {model.label for model in suite.models}),
        ("category", categories, known),
    ):
        if unknown := sorted(set(asked or []) - offered):
            msg = f"Suite {suite.suite} has no {kind} {', '.join(unknown)}; it has {', '.join(sorted(offered))}."
            raise ValueError(msg)
    return replace(
        suite,
        models=[model for model in suite.models if models is None or model.label in models],
        datasets=[
            replace(dataset, categories=[c for c in dataset.categories if categories is None or c in categories])
            for dataset in suite.datasets
        ],
        seeds=suite.seeds if seeds is None else seeds,
    )
