# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Run every job in its own process, so that peak memory, random state and crashes are isolated."""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from anomalib_vmpfd.benchmark.records import SKIPPED, RunResult

from .spec import RunSpec

# A fork server has imported anomalib once and starts a clean process in half a second; not available on Windows.
CONTEXT: Any = multiprocessing.get_context(
    "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn",
)
if CONTEXT.get_start_method() == "forkserver":
    CONTEXT.set_forkserver_preload(["anomalib_vmpfd.benchmark.run.measure"])


def run_isolated(spec: RunSpec, log: Path) -> RunResult:
    """Run a job in a new process; a failure, even of the process, is a row too, and so are missing weights.

    Args:
        spec (RunSpec): What to run.
        log (Path): File for the output of the process.

    Returns:
        RunResult: The result, or a row whose status is ``failed: `` or ``skipped: `` and the reason.
    """
    if spec.missing:
        reason = f"{' and '.join(spec.missing)} not found; put it there, or name its folder with --weights FOLDER"
        return RunResult({**spec.key._asdict(), "status": f"{SKIPPED}{reason}", "settings": spec.settings})
    log.parent.mkdir(parents=True, exist_ok=True)
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_child, args=(spec, log, dict(os.environ), sender))
    process.start()
    sender.close()
    try:
        result: RunResult | str = receiver.recv()
    except EOFError:
        process.join()
        result = f"the process {_death(process.exitcode)}"
    process.join()
    if isinstance(result, str):
        return RunResult({**spec.key._asdict(), "status": f"failed: {result}", "settings": spec.settings})
    return result


def _child(spec: RunSpec, log: Path, environment: dict[str, str], sender: Connection) -> None:
    """Run a job and send its result, or the error as a line of text."""
    os.environ.update(environment)  # the fork server has an older one, and Ray selects the GPU by it
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with log.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        from anomalib_vmpfd.registration import register

        from .measure import measure

        register()
        result: RunResult | str = measure(spec)
    except BaseException as error:  # noqa: BLE001 - recorded in the row, the suite continues
        traceback.print_exc()
        result = " ".join(f"{type(error).__name__}: {error}".split())[:400]
    sys.stdout.flush()
    sys.stderr.flush()
    sender.send(result)


def _die_with_parent() -> None:
    """End this process when its parent ends, so that a killed suite leaves no processes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        hint = ", perhaps for lack of memory" if -code == getattr(signal, "SIGKILL", None) else ""
        return f"was ended by {signal.Signals(-code).name}{hint}"
    return f"ended with exit status {code} and no result"
