# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What the killed processes do, and how they are caught at the right moment."""

import multiprocessing
import os
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import tiny

EPOCHS = 4
PATIENCE = 600  # seconds; a busy machine takes minutes to import anomalib
# imports anomalib once, and starts a clean process in no time
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["anomalib.engine", "anomalib_vmpfd.models.vmpfd_ad", "anomalib.data"])


def checkpoints(results: Path) -> list[Path]:
    return sorted(results.glob("VmpfdAd/tiny/v*/weights/lightning/*.ckpt"))


def train(root: Path, results: Path, mark: Path, moment: str = "", checkpoint: Path | None = None, **arguments) -> None:
    """Train, and at a moment of the third epoch leave ``mark`` and linger there."""
    from lightning.pytorch import Callback

    from anomalib_vmpfd.engine import module

    epoch = [-1]

    def linger() -> None:
        if epoch[0] == 2:
            mark.touch()
            time.sleep(2)

    class Watch(Callback):
        def on_train_epoch_start(self, trainer, *_args) -> None:
            epoch[0] = trainer.current_epoch

        def on_train_batch_end(self, *_args) -> None:
            if moment == "training":
                linger()

    fsync, read = os.fsync, module.read

    def slow_fsync(file: int) -> None:
        linger()
        fsync(file)

    def slow_read(normals, indices, description, *reading) -> Iterator:
        for batch in read(normals, indices, description, *reading):
            yield batch
            if description.startswith("Calibrating"):
                linger()

    if moment == "checkpoint":
        os.fsync = slow_fsync
    if moment == "calibration":
        module.read = slow_read
    runner = tiny.engine(results, max_epochs=EPOCHS, callbacks=[Watch()], **arguments)
    try:
        runner.fit(tiny.model(), datamodule=tiny.data(root), ckpt_path=checkpoint)
    except BaseException as error:
        mark.with_suffix(".error").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        mark.with_suffix(".trace").write_text(traceback.format_exc(), encoding="utf-8")
        raise


def kill_at(mark: Path, process, number: signal.Signals) -> None:
    """Send a signal as soon as the mark is there, and wait for the end."""
    wait_for(mark.exists, process)
    os.kill(process.pid, number)
    process.join(PATIENCE)
    assert not process.is_alive()


def wait_for(condition: Callable[[], bool], process) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.is_alive(), "it ended before the fault"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def small_disk(folder: Path, megabytes: float) -> Generator[str, None, None]:
    """A tmpfs of this size where it can be mounted; yields how the disk was made small, or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    size = f"size={int(megabytes * 2**20)},mode=0700"
    mounted = _succeeds("mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder))
    try:
        yield "tmpfs" if mounted else ""
    finally:
        if mounted:
            _succeeds("umount", "-l", str(folder))


def _succeeds(*command: str) -> bool:
    with suppress(OSError):
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    return False


def limit_file_size(megabytes: float) -> None:
    """In a process of its own: no file grows beyond this size, as on a disk that is full."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(megabytes * 2**20),) * 2)
