# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Cost of a training step of the paper's preset, beside that of another version of the package.

    git worktree add ../before 635ff5a
    python perf/paper_step.py --before ../before/src

A step is forward, backward and the optimizer's step on a batch of the preset, descriptors given, as a training has them
cached. The versions take turns, each turn in a process of its own; of every version the fastest step counts. The time
is that of the processor, as other work on the machine stretches the time of the wall. Writes
``results/speed/paper_step.csv``, the ratio included.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml

ROOT = Path(__file__).parents[1]


def measure(threads: int, steps: int) -> tuple[float, float]:
    """Least processor seconds of a step, and the loss of the first, in this process."""
    from anomalib_vmpfd import VmpfdAd
    from anomalib_vmpfd.engine.optim import adamw

    torch.set_num_threads(threads)
    preset = yaml.safe_load((ROOT / "configs" / "vmpfd_ad_paper.yaml").read_text(encoding="utf-8"))
    arguments, batch = preset["model"]["init_args"], preset["data"]["init_args"]["train_batch_size"]
    model = VmpfdAd(**arguments, visualizer=False).model.train()
    torch.manual_seed(0)
    images = torch.rand(batch, 3, *arguments["image_size"])
    grid = model.descriptor.grid.shape
    descriptors = (torch.randn(batch, model.descriptor.channels, *grid),)
    optimizer = adamw(model, arguments["lr"], arguments["weight_decay"], "constant", steps)["optimizer"]

    def step() -> tuple[float, float]:
        start = time.process_time()
        optimizer.zero_grad()
        loss = torch.stack(list(model(images, descriptors).values())).sum()
        loss.backward()
        optimizer.step()
        return time.process_time() - start, loss.item()

    first = step()
    return min(step()[0] for _ in range(steps)), first[1]


def main() -> None:
    """Measure both versions in turn and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="src folder of the other version")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="timed steps of a turn, after one to warm up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "speed" / "paper_step.csv")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(*measure(arguments.threads, arguments.steps))
        return
    versions = {"before": arguments.before, "now": ROOT / "src"}
    command = [sys.executable, __file__, "--worker", "--threads", arguments.threads, "--steps", arguments.steps]
    turns: dict[str, list[list[float]]] = {}
    for _ in range(arguments.rounds):
        for name, source in versions.items():
            if source is not None:
                result = subprocess.run(  # noqa: S603
                    list(map(str, command)),
                    env=os.environ | {"PYTHONPATH": str(source.resolve())},
                    check=True,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                turns.setdefault(name, []).append([float(x) for x in result.stdout.split()[-2:]])
                print(name, turns[name][-1], flush=True)
    least = {name: min(seconds for seconds, _ in each) for name, each in turns.items()}
    rows = [
        {
            "version": name,
            "commit": commit_of(versions[name]),
            "processor_s": round(seconds, 2),
            "ratio": round(seconds / least.get("before", seconds), 3),
            "first_loss": round(turns[name][0][1], 6),
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "torch": torch.__version__,
        }
        for name, seconds in least.items()
    ]
    with arguments.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(arguments.output.read_text(encoding="utf-8"))


def commit_of(source: Path) -> str:
    """Commit of a checkout, empty where the folder is none."""
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603


if __name__ == "__main__":
    main()
