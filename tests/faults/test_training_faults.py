# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A training that is killed, starved or doubled goes on from a whole checkpoint to the same end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import CONTEXT, EPOCHS, PATIENCE, checkpoints, kill_at, limit_file_size, small_disk, train

import tiny
from anomalib_vmpfd import VmpfdAd

linux = pytest.mark.skipif(sys.platform != "linux", reason="uses signals, tmpfs and limits of Linux")
pytestmark = linux


@pytest.fixture(scope="module")
def undisturbed(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Weights of a training that nobody disturbed."""
    runner = tiny.engine(tmp_path_factory.mktemp("undisturbed"), max_epochs=EPOCHS)
    model = tiny.model()
    runner.fit(model, datamodule=tiny.data(parts))
    return model.state_dict()


def assert_same_end(parts: Path, results: Path, checkpoint: Path, expected: dict[str, torch.Tensor]) -> None:
    """Resuming from the checkpoint ends as if nothing had happened."""
    VmpfdAd.load_from_checkpoint(checkpoint)
    model = tiny.model()
    tiny.engine(results, max_epochs=EPOCHS).fit(model, datamodule=tiny.data(parts), ckpt_path=checkpoint)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, equal_nan=True, msg=f"{name} differs")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("moment", ["training", "checkpoint", "calibration"])
def test_a_killed_training_goes_on_to_the_same_end(moment, number, parts, undisturbed, tmp_path, case):
    results, mark = tmp_path / "results", tmp_path / "mark"
    process = CONTEXT.Process(target=train, args=(parts, results, mark, moment))
    process.start()
    kill_at(mark, process, number)
    (checkpoint,) = checkpoints(results)
    epoch = torch.load(checkpoint, weights_only=True)["epoch"]
    assert epoch >= 1, "what two epochs learnt is there"
    assert_same_end(parts, results, checkpoint, undisturbed)
    message = f"exit {process.exitcode}, whole checkpoint of epoch {epoch + 1}, resumed to the same weights"
    case(f"{number.name} in mid-{moment}", "goes on from the last epoch to the same end", message, "yes")


def test_kills_at_random_moments_never_leave_half_a_checkpoint(parts, tmp_path, case):
    case("SIGKILL at random moments, 10 in a row", "the checkpoint is whole after each", nothing_lost="yes")
    results, epochs = tmp_path / "results", []
    for attempt in range(10):
        process = CONTEXT.Process(target=train, args=(parts, results / str(attempt), tmp_path / "mark"))
        process.start()
        deadline = time.monotonic() + PATIENCE
        while not (found := checkpoints(results / str(attempt))):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(0.05 * attempt)
        process.kill()
        process.join()
        epochs.append(torch.load(found[0], weights_only=True)["epoch"])
        VmpfdAd.load_from_checkpoint(found[0])
    assert len(epochs) == 10


@pytest.mark.parametrize("way", ["tmpfs", "RLIMIT_FSIZE"])
def test_a_full_disk_keeps_the_last_checkpoint(way, parts, undisturbed, tmp_path, case):
    size = _checkpoint_megabytes(parts, tmp_path)
    disk, mark = tmp_path / "disk", tmp_path / "mark"
    with small_disk(disk, size * 1.6 if way == "tmpfs" else 1000) as mounted:
        if not mounted and way == "tmpfs":
            pytest.skip("no tmpfs can be mounted here; RLIMIT_FSIZE stands in")
        if way == "tmpfs":
            process = CONTEXT.Process(target=train, args=(parts, disk, mark))
        else:
            process = CONTEXT.Process(target=_train_until_the_limit, args=(parts, disk, mark, size / 2))
        process.start()
        process.join(PATIENCE)
        message = mark.with_suffix(".error").read_text(encoding="utf-8")
        assert process.exitcode == 1
        assert "model.ckpt could not be written (" in message
        assert "what it held before is unharmed. Free space" in message
        (checkpoint,) = checkpoints(disk)
        assert_same_end(parts, tmp_path / "elsewhere", checkpoint, undisturbed)
        assert not list(disk.rglob("*.part")), "what was begun is cleared away"
    case(f"disk full at a checkpoint ({way})", "one error names the file; the last checkpoint is whole",
         message.replace(str(tmp_path), ""), "yes")  # fmt: skip


def _checkpoint_megabytes(parts: Path, tmp_path: Path) -> float:
    runner = tiny.engine(tmp_path / "measure", max_epochs=1)
    runner.fit(tiny.model(), datamodule=tiny.data(parts))
    return Path(runner.trainer.checkpoint_callback.best_model_path).stat().st_size / 2**20


def _train_until_the_limit(parts: Path, disk: Path, mark: Path, megabytes: float) -> None:
    from lightning.pytorch import Callback

    class Fill(Callback):
        def on_train_epoch_start(self, trainer, *_args) -> None:
            if trainer.current_epoch == 1:
                limit_file_size(megabytes)

    import processes

    engine = tiny.engine
    tiny.engine = lambda folder, callbacks=(), **arguments: engine(folder, callbacks=[*callbacks, Fill()], **arguments)
    processes.train(parts, disk, mark)


def test_two_trainings_in_one_results_folder(parts, undisturbed, tmp_path, case):
    results = tmp_path / "results"
    marks = [tmp_path / "one", tmp_path / "two"]
    both = [CONTEXT.Process(target=train, args=(parts, results, mark)) for mark in marks]
    for process in both:
        process.start()
    for process in both:
        process.join(PATIENCE)
    said = [mark.with_suffix(".error").read_text("utf-8") for mark in marks if mark.with_suffix(".error").exists()]
    found = checkpoints(results)
    assert len(found) == 2 - len(said), "each has a folder of its own, or said that it had none"
    assert all("FileExistsError" in message and "v0" in message for message in said)
    for checkpoint in found:
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        for name, value in undisturbed.items():
            if name in state:
                torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5, equal_nan=True)
    message = " ".join(said).replace(str(tmp_path), "") or "v0 and v1"
    case("two trainings in one results folder", "each in a version of its own, or an error names the folder", message,
         "yes")  # fmt: skip


def test_a_worker_that_dies_under_ddp_ends_the_training(parts, tmp_path, case):
    results, worker = tmp_path / "results", Path(__file__).with_name("dying_worker.py")
    # the other worker must not wait for ever
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, worker, parts, results]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE, env=environment)
    assert ended.returncode != 0
    message = next(line for line in reversed(ended.stderr.splitlines()) if "Error" in line)
    (checkpoint, *_) = checkpoints(results)
    assert torch.load(checkpoint, weights_only=True)["epoch"] >= 1
    tiny.engine(tmp_path / "on", max_epochs=EPOCHS).fit(tiny.model(), datamodule=tiny.data(parts), ckpt_path=checkpoint)
    case("worker killed under DDP", "ends with an error; goes on from the checkpoint", message[:200], "yes")
