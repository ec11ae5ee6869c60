# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Run the jobs of a suite: one after the other, in a pool of processes, or on Ray.

anomalib's own ``Benchmark`` builds models before it seeds, has no trainer arguments and saves once, at the end; its
``Pipeline`` reduces errors of a runner to a printed line. ``Job``, ``JobGenerator`` and the runners are reused.
"""

from contextlib import ExitStack
from pathlib import Path

from anomalib.pipelines.components import JobGenerator, Runner
from anomalib.pipelines.components.runners import ParallelRunner, SerialRunner

from anomalib_vmpfd.benchmark.results import Results
from anomalib_vmpfd.benchmark.suite import Suite

from .job import LOST, BenchmarkJobGenerator
from .ray_runner import RayRunner
from .spec import runs


def run_suite(suite: Suite, folder: Path, force: bool = False) -> list[str]:
    """Run all runs of a suite that have no result.

    Args:
        suite (Suite): The suite.
        folder (Path): Folder of its results.
        force (bool, optional): Repeat runs that have a result. Defaults to ``False``.

    Returns:
        list[str]: Status of each of these runs.

    Raises:
        OSError: If a row could not be written; the runs after it are not started.
    """
    specs = runs(suite, folder)
    with ExitStack() as claims:
        statuses = _runner(suite, BenchmarkJobGenerator(specs, Results(folder), claims, force)).run({})
    if lost := [status for status in statuses if status.startswith(LOST)]:
        raise OSError(lost[0].removeprefix(LOST))
    return statuses


def _runner(suite: Suite, generator: JobGenerator) -> Runner:
    if suite.runner == "parallel":
        return ParallelRunner(generator, n_jobs=suite.workers)
    if suite.runner == "ray":
        return RayRunner(generator, suite.workers, suite.threads or 1, suite.ray_address)
    return SerialRunner(generator)
