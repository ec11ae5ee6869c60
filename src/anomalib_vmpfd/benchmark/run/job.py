# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The runs of a suite as jobs of :mod:`anomalib.pipelines`."""

import logging
import sys
import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from pathlib import Path

from anomalib.pipelines.components import Job, JobGenerator
from anomalib.pipelines.types import PREV_STAGE_RESULT

from anomalib_vmpfd.benchmark.records import RunResult
from anomalib_vmpfd.benchmark.results import Results

from .isolation import run_isolated
from .spec import RunSpec

logger = logging.getLogger(__name__)

LOST = "lost: "  # begins the status of a run whose row could not be written


class BenchmarkJob(Job):
    """One run of the suite.

    Args:
        spec (RunSpec): What to run.
        results (Results): Where its row goes.
    """

    name = "benchmark"

    def __init__(self, spec: RunSpec, results: Results) -> None:
        self.spec = spec
        self.results = results
        self.lost = False

    def run(self, task_id: int | None = None) -> str:
        """Measure and write the row immediately, so that no finished run is lost on interruption.

        Args:
            task_id (int | None, optional): Number of the pool's worker, which selects the GPU. Defaults to ``None``.

        Returns:
            str: Status of the run.
        """
        if task_id is not None and self.spec.trainer.get("accelerator", "auto") not in {"auto", "cpu"}:
            self.spec.trainer = self.spec.trainer | {"devices": [task_id]}
        try:
            return self.record(run_isolated(self.spec, self.log))
        except OSError as error:
            # anomalib's runners would log the error, continue and end with another one
            self.lost = True
            return f"{LOST}{error}"

    @property
    def log(self) -> Path:
        """Path: File for the output of the run."""
        return self.results.log(self.spec.key)

    def record(self, result: RunResult) -> str:
        """Write the row and print its metrics.

        Args:
            result (RunResult): The result.

        Returns:
            str: Status of the run.
        """
        self.results.record(result)
        row, key = result.row, self.spec.key
        shown = {name: row.get(name) for name in ("image_AUROC", "pixel_AUROC", "AUPRO")}
        scores = [f"{name} {value:.4f}" for name, value in shown.items() if value is not None]
        run = f"{key.model} {key.dataset}/{key.category} seed {key.seed}"
        sys.stdout.write(f"{run}: {' '.join([row['status'], *scores])}\n")
        sys.stdout.flush()
        return row["status"]

    @staticmethod
    def collect(results: list[str]) -> list[str]:
        """Return the statuses.

        Args:
            results (list[str]): Status of each run.

        Returns:
            list[str]: The same.
        """
        return results

    @staticmethod
    def save(results: list[str]) -> None:
        """Do nothing: every job writes its own row.

        Args:
            results (list[str]): Status of each run.
        """


class BenchmarkJobGenerator(JobGenerator):
    """Yield the runs of a suite that have no result and are not claimed by another process.

    Args:
        specs (Iterable[RunSpec]): Runs of the suite.
        results (Results): Results so far.
        claims (ExitStack): Holds the claims on the runs until the runner has finished.
        force (bool): Repeat runs that have a result. Defaults to ``False``.
    """

    def __init__(self, specs: Iterable[RunSpec], results: Results, claims: ExitStack, force: bool = False) -> None:
        self.specs = specs
        self.results = results
        self.claims = claims
        self.force = force

    @property
    def job_class(self) -> type[Job]:
        """type[Job]: The class of the jobs."""
        return BenchmarkJob

    def generate_jobs(
        self,
        args: dict | None = None,
        prev_stage_result: PREV_STAGE_RESULT = None,
    ) -> Generator[Job, None, None]:
        """Yield jobs, reading the results again before each.

        Args:
            args (dict | None, optional): Not used.
            prev_stage_result (PREV_STAGE_RESULT, optional): Not used.

        Yields:
            Job: A run to measure.
        """
        del args, prev_stage_result
        started = time.time()
        for spec in self.specs:
            claim = self.results.claim(spec.key)
            if claim is None:
                logger.info("%s is claimed by another process.", spec.key.stem)
                continue
            self.claims.callback(claim.release)
            if not self.force and (settings := self.results.done().get(spec.key)) is not None:
                if settings != spec.settings:
                    logger.warning("%s has a result of other settings; --force repeats it.", spec.key.stem)
                continue
            job = BenchmarkJob(spec, self.results)
            yield job
            if job.lost:
                return
        logger.info("Suite took %.0f s.", time.time() - started)
