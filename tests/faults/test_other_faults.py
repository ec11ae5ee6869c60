# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Downloads and benchmark suites that are killed, cut and doubled."""

import csv
import hashlib
import io
import os
import re
import signal
import sys
import threading
import time
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from processes import CONTEXT, PATIENCE, kill_at, small_disk, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses signals and tmpfs of Linux")


class Server:
    """Serves one archive; slowly, cut, or with an error."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.way = "whole"
        self.half = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if outer.way == "error":
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.content)))
                self.end_headers()
                middle = len(outer.content) // 2
                self.wfile.write(outer.content[:middle])
                outer.half.set()
                if outer.way == "cut":
                    return
                if outer.way == "slow":
                    time.sleep(2)
                changed = bytes(len(outer.content) - middle) if outer.way == "changed" else outer.content[middle:]
                self.wfile.write(changed)

            def log_message(self, *_args) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/weights.zip"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork

    torch.manual_seed(0)
    return SmallPatchDescriptionNetwork(384).state_dict()


@pytest.fixture
def server(state):
    buffer, archive = io.BytesIO(), io.BytesIO()
    torch.save(state, buffer)
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("efficientad_pretrained_weights/pretrained_teacher_small.pth", buffer.getvalue())
    running = Server(archive.getvalue())
    yield running
    running.http.shutdown()


def download(url: str, digest: str, cache: str, answer: str) -> None:
    os.environ["XDG_CACHE_HOME"] = cache
    from anomalib.models.image.efficient_ad import lightning_model

    from anomalib_vmpfd.weights import load_pdn_state_dict

    lightning_model.WEIGHTS_DOWNLOAD_INFO = replace(lightning_model.WEIGHTS_DOWNLOAD_INFO, url=url, hashsum=digest)
    try:
        weights = load_pdn_state_dict("official")
    except Exception as error:  # noqa: BLE001
        Path(answer).write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
    else:
        torch.save(weights, answer)


class Client:
    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.cache, self.answer = server, folder / "cache", folder / "answer"
        self.cache.mkdir(exist_ok=True)
        self.digest = hashlib.sha256(server.content).hexdigest()

    def start(self):
        self.answer.unlink(missing_ok=True)
        arguments = (self.server.url, self.digest, str(self.cache), str(self.answer))
        process = CONTEXT.Process(target=download, args=arguments)
        process.start()
        return process

    def error(self) -> str:
        self.start().join(PATIENCE)
        return self.answer.read_text(encoding="utf-8")

    def assert_nothing_passes_for_whole(self) -> None:
        assert not list(self.cache.rglob("efficientad_pretrained_weights/*.pth"))

    def assert_whole(self, state: dict[str, torch.Tensor]) -> None:
        self.server.way = "whole"
        self.start().join(PATIENCE)
        torch.testing.assert_close(torch.load(self.answer, weights_only=True), dict(state), rtol=0, atol=0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_killed_download_begins_anew(number, server, state, tmp_path, case):
    client = Client(server, tmp_path)
    server.way = "slow"
    process = client.start()
    wait_for(server.half.is_set, process)
    os.kill(process.pid, number)
    process.join(PATIENCE)
    assert process.exitcode == -number
    client.assert_nothing_passes_for_whole()
    client.assert_whole(state)
    case(f"{number.name} in mid-download", "half a file is never used; the next start downloads it", nothing_lost="yes")


@pytest.mark.parametrize(
    ("way", "said"),
    [("cut", "retrieval incomplete|retrieved"), ("error", "503"), ("changed", "hash")],
)
def test_a_failed_download_says_what_to_do(way, said, server, state, tmp_path, case):
    client = Client(server, tmp_path)
    server.way = way
    message = client.error()
    assert re.search(said, message)
    assert 'use "bundled" or the path of a local file' in message
    client.assert_nothing_passes_for_whole()
    client.assert_whole(state)
    names = {"cut": "connection lost in mid-download", "error": "server error 503", "changed": "tampered download"}
    shown = message.replace(str(tmp_path), "")
    case(names[way], "one error names address and cure; nothing is kept", shown[:300], "yes")


def test_a_full_disk_in_mid_download_says_so(server, state, tmp_path, case):
    client = Client(server, tmp_path)
    with small_disk(client.cache, len(server.content) / 2**20 / 2) as mounted:
        if not mounted:
            pytest.skip("no tmpfs can be mounted here")
        message = client.error()
        assert "No space left" in message
        client.assert_nothing_passes_for_whole()
    client.assert_whole(state)
    case("disk full in mid-download (tmpfs)", "one error; nothing is kept", message[:300], "yes")


def test_two_downloads_at_once_both_end_well(server, state, tmp_path, case):
    client, other = Client(server, tmp_path), Client(server, tmp_path)
    other.answer = tmp_path / "other"
    server.way = "slow"
    both = [client.start(), other.start()]
    for process in both:
        process.join(PATIENCE)
    for answer in (client.answer, other.answer):
        torch.testing.assert_close(torch.load(answer, weights_only=True), dict(state), rtol=0, atol=0)
    case("two downloads at once", "both load the whole file", nothing_lost="yes")


SUITE = """
suite: tiny
seeds: [0, 1, 2]
threads: 1
trainer: {accelerator: cpu, max_epochs: 1, limit_val_batches: 0}
speed: {warmup: 1, repeats: 2, batch_size: 2, batch_repeats: 1}
models:
  - label: VmpfdAd
    model: VmpfdAd
    args: {image_size: [64, 64], density_args: {num_components: 32}, seed: "{seed}"}
datasets:
  - name: Tiny
    data: Folder
    categories: [parts]
    args: {name: tiny, root: "{root}", normal_dir: good, abnormal_dir: bad, normal_test_dir: good_test, mask_dir: mask,
           num_workers: 0, train_batch_size: 4, eval_batch_size: 4, val_split_mode: none}
"""


def suite(config: Path, parts: Path, output: Path, answer: Path) -> None:
    from anomalib_vmpfd.benchmark.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job ignores
    with answer.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        code = main(["--config", str(config), "--root", str(parts), "--output", str(output)])
        file.flush()
    sys.exit(code)


@pytest.fixture
def start(parts, tmp_path):
    (tmp_path / "tiny.yaml").write_text(SUITE, encoding="utf-8")

    begun = []

    def begin(output: Path, answer: str = "answer"):
        process = CONTEXT.Process(target=suite, args=(tmp_path / "tiny.yaml", parts, output, tmp_path / answer))
        process.start()
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()


def rows(output: Path) -> list[dict[str, str]]:
    table = output / "tiny" / "results.csv"
    if not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def measured(output: Path) -> list[tuple[str, ...]]:
    return [(row["seed"], row["status"], row["image_AUROC"], row["threshold"]) for row in rows(output)]


@pytest.fixture(scope="module")
def undisturbed(parts, tmp_path_factory) -> list[tuple[str, ...]]:
    folder = tmp_path_factory.mktemp("suite")
    (folder / "tiny.yaml").write_text(SUITE, encoding="utf-8")
    process = CONTEXT.Process(target=suite, args=(folder / "tiny.yaml", parts, folder, folder / "answer"))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0, (folder / "answer").read_text(encoding="utf-8")
    return measured(folder)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_killed_suite_goes_on(number, start, undisturbed, tmp_path, case):
    process = start(tmp_path)
    mark = tmp_path / "tiny" / "results.csv"
    kill_at(mark, process, number)
    kept = rows(tmp_path)
    assert 1 <= len(kept) < 3
    again = start(tmp_path)
    again.join(PATIENCE)
    assert again.exitcode == 0
    assert measured(tmp_path) == undisturbed
    assert all(row in rows(tmp_path) for row in kept), "nothing was measured twice"
    message = f"exit {process.exitcode}, {len(kept)} of 3 runs kept, the others measured by the next start"
    case(f"{number.name} in mid-benchmark", "goes on with the missing runs to the same table", message, "yes")


def test_a_killed_run_is_a_row_and_the_suite_goes_on(start, tmp_path, case):
    process = start(tmp_path)
    log = tmp_path / "tiny" / "logs"
    wait_for(lambda: log.is_dir() and any(log.glob("*.log")), process)
    children: list[int] = []

    def child() -> bool:
        children[:] = [int(link.parts[2]) for link in Path("/proc").glob("[0-9]*/fd/1") if str(log) in _target(link)]
        return bool(children)

    wait_for(child, process)
    os.kill(children[0], signal.SIGKILL)
    process.join(PATIENCE)
    statuses = [row["status"] for row in rows(tmp_path)]
    assert sorted(status == "ok" for status in statuses) == [False, True, True]
    failed = next(status for status in statuses if status != "ok")
    assert "SIGKILL" in failed
    again = start(tmp_path)
    again.join(PATIENCE)
    assert [row["status"] for row in rows(tmp_path)] == ["ok"] * 3
    case(
        "SIGKILL of one run of a suite", "its row says so, the others go on, the next start measures it", failed, "yes"
    )


def _target(link: Path) -> str:
    """File behind a process's standard output, nothing once the process is gone."""
    try:
        return str(link.readlink())
    except OSError:
        return ""


def test_two_suites_in_one_folder_share_the_work(start, undisturbed, tmp_path, case):
    both = [start(tmp_path, "one"), start(tmp_path, "two")]
    for process in both:
        process.join(PATIENCE)
    assert [process.exitcode for process in both] == [0, 0]
    assert measured(tmp_path) == undisturbed
    said = [(tmp_path / name).read_text(encoding="utf-8") for name in ("one", "two")]
    runs = [text.count(": ok") for text in said]
    assert sum(runs) == 3, "no run was measured by both"
    case("two suites in one results folder", "each run is measured once, the table is whole", f"{runs} runs", "yes")


def test_a_suite_on_a_full_disk_says_so(start, tmp_path, case):
    disk = tmp_path / "disk"
    with small_disk(disk, 0.02) as mounted:
        if not mounted:
            pytest.skip("no tmpfs can be mounted here")
        process = start(disk)
        process.join(PATIENCE)
        message = (tmp_path / "answer").read_text(encoding="utf-8").strip().splitlines()[-1]
        assert process.exitcode in {1, 2}
        assert "could not be written" in message or "No space left" in message
        kept = rows(disk)
        assert all(row["status"] == "ok" for row in kept)
    case("disk full in mid-benchmark (tmpfs)", "one error names the file; rows stay whole",
         message.replace(str(tmp_path), "")[:300], "yes")  # fmt: skip
