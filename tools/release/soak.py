# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Long runs: memory of an inference over a changing folder, and a suite of short runs with injected failures.

    python tools/release/soak.py inference --minutes 60
    python tools/release/soak.py suite --runs 50

The first predicts, round after round, a folder of generated parts in which images come, go and are sometimes broken,
and samples the resident memory to ``results/reliability/soak.csv``. The second measures a suite of as many runs as
asked for, while it kills the suite or single runs, breaks an image or starts a second suite; every event is a row of
``results/reliability/suite.csv``. Both may be stopped with Ctrl+C and go on where they were; ``--fresh`` starts anew.
"""

import argparse
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "reliability"
WORK = RESULTS / "work"
SETTINGS = {"image_size": (128, 128), "epochs": 2, "seed": 0}
PER_ROUND = 16


def append(path: Path, row: dict[str, object]) -> None:
    """Add a row to a CSV, with a header if it is new."""
    new = not path.is_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV, none where there is no file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def resident_mb() -> float:
    """Memory that this process holds now, in units of 1e6 bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def inference(minutes: float, fresh: bool) -> None:
    """Predict a changing folder until so many minutes are measured."""
    from anomalib.engine import Engine

    from anomalib_vmpfd import SampleParts, VmpfdAd
    from anomalib_vmpfd.data.sample import render
    from anomalib_vmpfd.engine.image_errors import ImageError

    out, folder, checkpoint = RESULTS / "soak.csv", WORK / "parts", WORK / "model.ckpt"
    if fresh:
        out.unlink(missing_ok=True)
        shutil.rmtree(WORK, ignore_errors=True)
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    if not checkpoint.is_file():
        runner = Engine(default_root_dir=WORK / "training", limit_val_batches=0, **quiet)
        data = SampleParts(
            root=WORK / "sample", train_batch_size=16, num_workers=0, val_split_mode="from_train", seed=0
        )
        runner.fit(VmpfdAd(**SETTINGS), datamodule=data)
        shutil.copyfile(runner.trainer.checkpoint_callback.best_model_path, checkpoint)
    model = VmpfdAd.load_from_checkpoint(checkpoint, visualizer=False)
    engine = Engine(default_root_dir=WORK / "predicted", **quiet)

    last = (rows(out) or [{"minutes": "0", "rounds": "0", "images": "0", "refused": "0"}])[-1]
    offset, done = float(last["minutes"]), [int(last[name]) for name in ("rounds", "images", "refused")]
    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    while (elapsed := offset + (time.monotonic() - start) / 60) < minutes:
        generator = np.random.default_rng(done[0])
        for index in range(PER_ROUND):
            kind = [None, "scratch", "dent", "broken_edge"][generator.integers(4)]
            picture, _ = render((done[0], index), kind)
            side = int(generator.choice([128, 256, 300]))
            Image.fromarray(picture).resize((side, side)).save(folder / f"{done[0]:06}-{index:02}.png")
        for old in sorted(folder.iterdir())[: -3 * PER_ROUND]:
            old.unlink()
        if broken := done[0] % 10 == 5:
            (folder / f"{done[0]:06}-broken.png").write_bytes(b"not an image")
        try:
            seen = engine.predict(model, data_path=folder)
        except ImageError as error:
            named = "-broken.png (not an image)" in str(error)
            if not (broken and named):
                raise
            (folder / f"{done[0]:06}-broken.png").unlink()
            done[2] += 1
            seen = engine.predict(model, data_path=folder)
        scores = np.concatenate([batch.pred_score.flatten().numpy() for batch in seen])
        if not np.isfinite(scores).all() or len(scores) != len(list(folder.iterdir())):
            msg = f"round {done[0]}: {len(scores)} scores, finite: {np.isfinite(scores).all()}"
            raise SystemExit(msg)
        done = [done[0] + 1, done[1] + len(scores), done[2]]
        names = {"rounds": done[0], "images": done[1], "refused": done[2]}
        append(out, {"minutes": f"{elapsed:.2f}", **names, "rss_mb": f"{resident_mb():.1f}"})
    print(f"{offset:.1f} minutes were there, now {elapsed:.1f}: {out}")


SUITE = """\
suite: soak
seeds: {seeds}
threads: 1
trainer: {{accelerator: cpu, max_epochs: 1, limit_val_batches: 0}}
speed: {{warmup: 1, repeats: 2, batch_size: 4, batch_repeats: 1}}
models:
  - label: VmpfdAd
    model: VmpfdAd
    args:
      image_size: [64, 64]
      encoder_args: {{depth: 1, dim: 16}}
      density_args: {{num_components: 32}}
      seed: "{{seed}}"
datasets:
  - name: SampleParts
    data: SampleParts
    categories: [washer]
    args: {{root: "{{root}}", num_workers: 0, train_batch_size: 16, eval_batch_size: 36, val_split_mode: from_train,
            seed: "{{seed}}"}}
"""
# a shell in the background starts its jobs deaf to Ctrl+C
CODE = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from anomalib_vmpfd.benchmark.cli import main; sys.exit(main(sys.argv[1:]))"
)


def signalled(number: signal.Signals) -> Callable[[subprocess.Popen], str]:
    """An event that sends the suite a signal."""

    def event(process: subprocess.Popen) -> str:
        process.send_signal(number)
        process.wait()
        return f"exit {process.returncode}"

    return event


class Soak:
    """A suite under a supervisor that disturbs it."""

    def __init__(self, runs: int) -> None:
        from anomalib_vmpfd.data.sample import make_sample

        self.runs = runs
        self.config, self.output, self.out = WORK / "soak.yaml", WORK / "suites", RESULTS / "suite.csv"
        self.sample = make_sample(WORK / "suite-data")
        self.config.write_text(SUITE.format(seeds=list(range(runs))), encoding="utf-8")
        self.table = self.output / "soak" / "results.csv"
        self.image = self.sample / "train" / "good" / "007.png"
        self.spare = WORK / "007.png"
        if self.spare.is_file():  # stopped while the image was broken
            shutil.move(self.spare, self.image)

    def start(self) -> subprocess.Popen:
        """Start the suite, or let it go on."""
        arguments = ["--config", self.config, "--root", self.sample.parent, "--output", self.output]
        command = [sys.executable, "-W", "ignore", "-c", CODE, *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603

    def done(self) -> dict[str, str]:
        """Rows of finished runs by seed."""
        return {row["seed"]: str(sorted(row.items())) for row in rows(self.table) if row["status"] == "ok"}

    def tell(self, event: str, before: dict[str, str], message: str) -> None:
        """Write what an event did to the rows that were there."""
        after = self.done()
        lost = sum(after.get(seed) != row for seed, row in before.items())
        message = " ".join(message.replace(f"{WORK}/", "").split())[:300]
        row = {"runs_done": len(before), "event": event, "message": message}
        append(self.out, {**row, "rows_kept": len(before) - lost, "rows_lost": lost})
        print(f"{len(before)} runs done, {event}: {message}", flush=True)

    def until(self, count: int, process: subprocess.Popen) -> None:
        """Wait until so many runs are done or the suite has ended."""
        while len(self.done()) < count and process.poll() is None:
            time.sleep(0.05)

    def running_children(self) -> list[int]:
        """Processes that write the log of a run."""
        found, logs = [], str(self.output.resolve() / "soak" / "logs")
        for link in Path("/proc").glob("[0-9]*/fd/1"):
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith(logs) and target.endswith(".log"):
                found.append(int(link.parts[2]))
        return found

    def kill_run(self, process: subprocess.Popen) -> str:
        """Kill the run that is being measured; its row says so and the suite goes on."""
        while not (children := self.running_children()):
            if process.poll() is not None:
                return "the suite had ended"
            time.sleep(0.01)
        os.kill(children[0], signal.SIGKILL)
        return self.first_failure(process)

    def break_image(self, process: subprocess.Popen) -> str:
        """Truncate a training image; the runs that meet it fail and name it."""
        shutil.copyfile(self.image, self.spare)
        self.image.write_bytes(self.spare.read_bytes()[:2000])
        said = self.first_failure(process)
        shutil.move(self.spare, self.image)
        return said

    def first_failure(self, process: subprocess.Popen) -> str:
        """Status of the first run that fails from now on."""
        known = {row["seed"] for row in rows(self.table) if row["status"] != "ok"}
        while process.poll() is None:
            for row in rows(self.table):
                if row["status"] != "ok" and row["seed"] not in known:
                    return row["status"]
            time.sleep(0.05)
        return "no run failed"

    def second_suite(self, process: subprocess.Popen) -> str:
        """Start the same suite beside the running one until two more runs are there."""
        other = self.start()
        self.until(len(self.done()) + 2, process)
        other.send_signal(signal.SIGINT)
        other.wait()
        return f"the second one ended with {other.returncode}"

    def run(self) -> None:
        """Measure all runs, with an event after every few."""
        events = [
            ("SIGKILL of the suite", signalled(signal.SIGKILL)),
            ("SIGKILL of a run", self.kill_run),
            ("SIGTERM of the suite", signalled(signal.SIGTERM)),
            ("truncated training image", self.break_image),
            ("second suite in the folder", self.second_suite),
            ("SIGINT of the suite", signalled(signal.SIGINT)),
        ]
        every = max(1, self.runs // (len(events) + 2))
        gone = len(rows(self.out))
        process = self.start()
        for index, (name, event) in enumerate(events[gone:], gone):
            self.until(every * (index + 1), process)
            if process.poll() is not None:
                process = self.start()
                time.sleep(1)
            before = self.done()
            self.tell(name, before, event(process))
            if process.poll() is not None:
                process = self.start()
        said = process.communicate()[0]
        for _ in range(3):  # runs that failed by our doing are measured by the next start
            if len(self.done()) == self.runs:
                break
            process = self.start()
            said = process.communicate()[0]
        self.tell("end", self.done(), f"{len(self.done())} of {self.runs} runs ok; {said.strip().splitlines()[-1]}")


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, option, default, kind in (("inference", "--minutes", 60.0, float), ("suite", "--runs", 50, int)):
        command = commands.add_parser(name)
        command.add_argument(option, type=kind, default=default)
        command.add_argument("--fresh", action="store_true", help="forget what was measured")
    arguments = parser.parse_args()
    try:
        _run(arguments)
    except KeyboardInterrupt:
        sys.exit("\nStopped. The same command goes on from here.")


def _run(arguments: argparse.Namespace) -> None:
    if arguments.command == "inference":
        inference(arguments.minutes, arguments.fresh)
        return
    if arguments.fresh:
        shutil.rmtree(WORK / "suites", ignore_errors=True)
        (RESULTS / "suite.csv").unlink(missing_ok=True)
    Soak(arguments.runs).run()


if __name__ == "__main__":
    main()
