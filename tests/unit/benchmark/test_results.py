# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The results file under several writers, kills and odd names."""

import csv
import multiprocessing
import os
import signal
import time
from pathlib import Path

from anomalib_vmpfd.benchmark.records import COLUMNS, RunKey, RunResult
from anomalib_vmpfd.benchmark.results import Results

# The columns every reader of the file may rely on.
FIXED = (
    "suite, model, dataset, category, seed, status, image_AUROC, image_AP, image_F1Score, pixel_AUROC, pixel_AP, "
    "pixel_F1Score, pixel_IoU, AUPRO, threshold, train_seconds, train_steps, latency_ms, throughput_ips, "
    "peak_memory_mb, parameters, flops, checkpoint_mb, device, precision, commit"
)
SPAWN = multiprocessing.get_context("spawn")


def result(model: str = "A", category: str = "c", seed: int = 0, **values: object) -> RunResult:
    key = RunKey("s", model, "d", category, seed)
    return RunResult({**key._asdict(), "status": "ok", "settings": "x", **values})


def test_header_begins_with_the_fixed_columns(tmp_path):
    Results(tmp_path).record(result())
    header = (tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.startswith(FIXED.replace(", ", ","))


def test_rows_come_back_as_written(tmp_path):
    results = Results(tmp_path)
    odd = 'failed: comma, "quote", line\nbreak; 100 %'
    results.record(result(model='"odd", name', category="01", image_AUROC=0.123456789, train_steps=70_000, AUPRO=None))
    results.record(result(model="failing", status=odd))
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert rows['"odd", name']["category"] == "01"
    assert rows['"odd", name']["image_AUROC"] == "0.1234568"
    assert rows['"odd", name']["train_steps"] == "70000"
    assert not rows['"odd", name']["AUPRO"]
    assert rows["failing"]["status"] == " ".join(odd.split())
    assert results.done() == {RunKey("s", '"odd", name', "d", "01", 0): "x"}


def test_a_run_has_one_row_and_the_order_is_that_of_the_keys(tmp_path):
    results = Results(tmp_path)
    for model, value in (("B", 0.1), ("A", 0.2), ("B", 0.3)):
        results.record(result(model=model, image_AUROC=value))
    assert [(row["model"], row["image_AUROC"]) for row in results.rows()] == [("A", "0.2"), ("B", "0.3")]


def _record_many(folder: Path, writer: int) -> None:
    for seed in range(25):
        Results(folder).record(result(model=f"m{writer}", seed=seed))


def test_no_row_is_lost_when_processes_write_at_once(tmp_path):
    writers = [SPAWN.Process(target=_record_many, args=(tmp_path, writer)) for writer in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(Results(tmp_path).rows()) == 75


def _record_forever(folder: Path) -> None:
    seed = 0
    while True:
        seed += 1
        Results(folder).record(result(seed=seed, image_AUROC=0.5))


def test_a_kill_leaves_a_whole_file(tmp_path):
    for attempt in range(3):
        before = len(Results(tmp_path).rows())
        writer = SPAWN.Process(target=_record_forever, args=(tmp_path,))
        writer.start()
        deadline = time.monotonic() + 60
        while len(Results(tmp_path).rows()) < before + 5 and time.monotonic() < deadline:
            time.sleep(0.01 * attempt)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        rows = Results(tmp_path).rows()
        assert len(rows) >= before + 5
        assert all(list(row) == list(COLUMNS) and row["image_AUROC"] == "0.5" for row in rows)
        Results(tmp_path).record(result(model=f"after{attempt}", image_AUROC=0.5))  # the lock is free again


def _claim(folder: Path, key: RunKey, answer) -> None:
    claim = Results(folder).claim(key)
    answer.send(claim is not None)
    time.sleep(60)
    claim.release()


def test_a_claim_keeps_others_off_and_dies_with_its_process(tmp_path):
    key = RunKey("s", "A", "d", "c", 0)
    receiver, sender = SPAWN.Pipe(duplex=False)
    other = SPAWN.Process(target=_claim, args=(tmp_path, key, sender))
    other.start()
    assert receiver.recv()
    assert Results(tmp_path).claim(key) is None
    assert Results(tmp_path).claim(key._replace(seed=1)) is not None
    other.kill()
    other.join()
    assert Results(tmp_path).claim(key) is not None


def test_what_must_not_be_published_is_ignored_by_git(tmp_path):
    Results(tmp_path).record(RunResult(result().row, {"scores": [1.0]}, {"maps": [0]}))
    ignored = (tmp_path / ".gitignore").read_text(encoding="utf-8").split()
    assert {"/maps/", "/logs/", "/gallery.html", "/checkpoints/"} <= set(ignored)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["maps", "predictions"]
