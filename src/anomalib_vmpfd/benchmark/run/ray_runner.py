# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A runner of jobs as tasks of a Ray cluster (extra ``ray``)."""

from typing import TYPE_CHECKING, Any, cast

from anomalib.pipelines.components import JobGenerator, Runner
from anomalib.pipelines.types import GATHERED_RESULTS, PREV_STAGE_RESULT

from anomalib_vmpfd.benchmark.records import RunResult

from .isolation import run_isolated

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .job import BenchmarkJob


class RayRunner(Runner):
    """Run jobs on the workers of a Ray cluster and write their rows in this process.

    The workers need this package and the data at the same path; they send back rows, scores and heatmaps.

    Args:
        generator (JobGenerator): Yields :class:`BenchmarkJob`.
        workers (int): Concurrent jobs of a local instance.
        threads (int): CPUs per job.
        address (str | None): Address of a cluster to join, e.g. ``auto``. Defaults to ``None``: start a local instance.
    """

    def __init__(self, generator: JobGenerator, workers: int, threads: int = 1, address: str | None = None) -> None:
        super().__init__(generator)
        self.workers = workers
        self.threads = threads
        self.address = address

    def run(self, args: dict, prev_stage_results: PREV_STAGE_RESULT = None) -> GATHERED_RESULTS:
        """Run all jobs.

        Args:
            args (dict): Handed to the generator.
            prev_stage_results (PREV_STAGE_RESULT, optional): Handed to the generator. Defaults to ``None``.

        Returns:
            GATHERED_RESULTS: Status of every run.

        Raises:
            ModuleNotFoundError: If Ray is not installed.
        """
        try:
            import ray
        except ModuleNotFoundError as error:
            msg = "runner: ray needs Ray, pip install 'anomalib-vmpfd[ray]'; runner: serial does not."
            raise ModuleNotFoundError(msg) from error

        if started := not ray.is_initialized():
            local = self.address is None
            cpus = self.workers * self.threads if local else None
            ray.init(address=self.address, num_cpus=cpus, include_dashboard=False if local else None)

        statuses: list[str] = []
        pending: dict[Any, BenchmarkJob] = {}
        try:
            for job in cast("Iterable[BenchmarkJob]", self.generator(args, prev_stage_results)):
                gpus = 0 if job.spec.trainer.get("accelerator", "auto") in {"auto", "cpu"} else 1
                remote = ray.remote(num_cpus=self.threads, num_gpus=gpus)(run_isolated)
                pending[remote.remote(job.spec, job.log)] = job
            while pending:
                (reference, *_), _ = ray.wait(list(pending))
                statuses.append(_finish(ray, reference, pending.pop(reference)))
        finally:
            if started:
                ray.shutdown()
        return self.generator.job_class.collect(statuses)


def _finish(ray, reference, job: "BenchmarkJob") -> str:  # noqa: ANN001
    """Write the row of a task, also of one whose worker was lost."""
    try:
        result = ray.get(reference)
    except ray.exceptions.RayError as error:
        status = f"failed: {' '.join(f'{type(error).__name__}: {error}'.split())[:400]}"
        result = RunResult({**job.spec.key._asdict(), "status": status, "settings": job.spec.settings})
    return job.record(result)
