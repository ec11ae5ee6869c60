# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The page of ``anomalib-vmpfd inspect``: time from drop to heatmap, memory over many images, many uploads at once.

    python perf/inspect_page.py
    python perf/inspect_page.py --images 100

Writes ``results/speed/inspect_page.csv``. The model is VmpfdAd of default size, trained on generated parts; the server
is a process of its own, with as many threads as ``OMP_NUM_THREADS`` says. A headless Chromium is given one file after
the other, 20 of them: the time is from giving the file until its map is loaded as a picture, and includes the browser.
What the server computed of it does not depend on what else the machine does, the time does.
Images are then given in batches of 50; memory is the resident set of the server before and after. At last
a hundred clients without a browser upload an image each, all at the same moment.
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from anomalib.engine import Engine
from PIL import Image
from selenium import webdriver

from anomalib_vmpfd import SampleParts, VmpfdAd
from anomalib_vmpfd.benchmark.run.environment import describe

ROOT = Path(__file__).parents[1]
SINGLE, BATCH, AT_ONCE = 20, 50, 100
BOUNDARY = "----image"
SERVE = "import sys; from anomalib_vmpfd.cli import main; sys.exit(main(sys.argv[1:]))"


def trained(folder: Path) -> Path:
    """Checkpoint of a model of default size."""
    data = SampleParts(root=folder / "data", num_workers=0, seed=0)
    engine = Engine(default_root_dir=folder, accelerator="cpu", logger=False, limit_val_batches=0)
    engine.fit(VmpfdAd(visualizer=False), datamodule=data)
    return Path(engine.trainer.checkpoint_callback.best_model_path)


@contextmanager
def served(checkpoint: Path, folder: Path) -> Generator[tuple[str, int], None, None]:
    """Address and process of a server."""
    words = [sys.executable, "-u", "-c", SERVE, "inspect", "--ckpt_path", str(checkpoint), "--browser", "false"]
    with (folder / "server.log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log, cwd=folder)  # noqa: S603 - our own command
        try:
            for _ in range(240):
                if found := re.search(r"http://[\d.:]+", (folder / "server.log").read_text(encoding="utf-8")):
                    break
                time.sleep(0.5)
            else:
                sys.exit((folder / "server.log").read_text(encoding="utf-8"))
            yield found.group(), server.pid
        finally:
            server.terminate()
            server.wait()


def resident_mb(process: int) -> float:
    """Resident set of a process in MB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024  # type: ignore[union-attr]


def cpu_seconds(process: int) -> float:
    """Time that a process has computed for, on all cores together."""
    user, system = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def chromium(url: str) -> Generator[webdriver.Chrome, None, None]:
    """A headless Chromium with the page."""
    options = webdriver.ChromeOptions()
    for switch in ("--headless", "--no-sandbox", "--disable-gpu"):
        options.add_argument(switch)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        browser.get(url)
        until(browser, "return document.querySelector('#files input[type=file]')")
        yield browser
    finally:
        browser.quit()


def until(browser: webdriver.Chrome, script: str, *values: Any) -> None:  # noqa: ANN401
    """Wait for a script to give something."""
    while not browser.execute_script(script, *values):
        time.sleep(0.005)


def drop(browser: webdriver.Chrome, files: list[Path]) -> None:
    """Give files to the page."""
    until(browser, "return document.querySelector('#files input[type=file]')")
    browser.find_element("css selector", "#files input[type=file]").send_keys("\n".join(map(str, files)))


def seconds_to_heatmap(browser: webdriver.Chrome, file: Path) -> float:
    """Time from giving a file until its map is there."""
    start = time.perf_counter()
    drop(browser, [file])
    until(
        browser,
        "const m = document.querySelectorAll('#pictures figure > img')[1];"
        "return m && m.complete && m.alt.endsWith(arguments[0])",
        file.name,
    )
    return time.perf_counter() - start


def upload(url: str, event: int, components: int, number: int, content: bytes) -> bool:
    """What a browser sends and receives for one image; whether a map came."""
    name = f"at_once_{number}.png"
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    form = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    (path,) = json.load(urllib.request.urlopen(urllib.request.Request(f"{url}/gradio_api/upload", body, form)))  # noqa: S310
    file = {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    data = [[file], None, 0.5, "added", "anomaly_map"][:components]
    asked = json.dumps({"data": data, "fn_index": event, "session_hash": f"s{number}"}).encode()
    form = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"{url}/gradio_api/queue/join", asked, form)).read()  # noqa: S310
    with urllib.request.urlopen(f"{url}/gradio_api/queue/data?session_hash=s{number}", timeout=300) as answers:  # noqa: S310
        for line in answers:
            message = json.loads(line[5:]) if line.startswith(b"data:") else {}
            if message.get("msg") == "process_completed":
                return bool(message["success"])
    return False


def at_once(url: str, content: bytes) -> tuple[int, float]:
    """How many of a hundred uploads were answered, and the time until the last was."""
    config = json.load(urllib.request.urlopen(f"{url}/config"))  # noqa: S310
    files = next(each["id"] for each in config["components"] if each["props"].get("elem_id") == "files")
    event = next(each for each in config["dependencies"] if [files, "upload"] in each["targets"])
    start = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as clients:
        answered = clients.map(
            lambda number: upload(url, event["id"], len(event["inputs"]), number, content), range(AT_ONCE)
        )
        return sum(answered), time.perf_counter() - start


def measure(checkpoint: Path, sources: list[Path], folder: Path, images: int) -> list[tuple[str, str]]:
    """Names and values of what was measured."""
    copies = []
    for number in range(SINGLE + images):
        copies.append(folder / f"part_{number:05}.png")
        shutil.copyfile(sources[number % len(sources)], copies[-1])
    with served(checkpoint, folder) as (url, process), chromium(url) as browser:
        seconds_to_heatmap(browser, copies[0])  # the first image also warms up
        computed = cpu_seconds(process)
        seconds = [seconds_to_heatmap(browser, file) for file in copies[1:SINGLE]]
        computed = (cpu_seconds(process) - computed) / len(seconds)
        before = resident_mb(process)
        start = time.perf_counter()
        for first in range(SINGLE, SINGLE + images, BATCH):
            batch = copies[first : first + BATCH]
            drop(browser, batch)
            done = first + len(batch)
            counted = (
                "[...document.querySelectorAll('#summary strong')].reduce((sum, each) => sum + +each.textContent, 0)"
            )
            until(browser, f"return {counted} == arguments[0]", done)
        each = (time.perf_counter() - start) / images
        after = resident_mb(process)
        answered, last = at_once(url, copies[0].read_bytes())
        final = resident_mb(process)
    with Image.open(sources[0]) as image:
        size = f"{image.width} x {image.height}"
    return [
        ("drop to heatmap, median s", f"{median(seconds):.3f}"),
        ("drop to heatmap, 95 % s", f"{quantiles(seconds, n=20)[-1]:.3f}"),
        ("of it computed by the server, mean s", f"{computed:.3f}"),
        ("single images", str(len(seconds))),
        ("in batches of 50, s an image", f"{each:.3f}"),
        ("images in batches", str(images)),
        ("memory before, MB", f"{before:.0f}"),
        ("memory after, MB", f"{after:.0f}"),
        ("uploads at once", str(AT_ONCE)),
        ("of these answered", str(answered)),
        ("until the last answer, s", f"{last:.1f}"),
        ("memory at the end, MB", f"{final:.0f}"),
        ("image size", size),
        ("threads", os.environ.get("OMP_NUM_THREADS", "default")),
        ("load of the machine at the end", f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"),
    ]


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="images in batches (%(default)s)")
    parser.add_argument("--ckpt_path", type=Path, help="a checkpoint instead of a training")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = args.ckpt_path or trained(folder)
        data = SampleParts(root=folder / "data", num_workers=0, seed=0)
        data.prepare_data()
        sources = sorted((folder / "data").rglob("test/*/*.png"))
        rows = measure(checkpoint.resolve(), sources, folder, args.images)
    rows += [(key, str(value)) for key, value in describe(torch.device("cpu")).items()]
    with (ROOT / "results" / "speed" / "inspect_page.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("measured", "value"), *rows])
    for key, value in rows:
        print(f"{key:32}{value}")


if __name__ == "__main__":
    main()
