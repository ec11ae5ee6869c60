# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Where the time of one image goes: the operators of VmpfdAd at 256 x 256 pixels, batch 1, by torch's profiler.

    python perf/profile_inference.py --label after

Replaces the rows of that label in ``results/speed/profile.csv``; keep ``before`` from the commit before a change. The
row ``total`` is the median latency without the profiler. ``commit`` tells which code was measured.
"""

import argparse
import csv
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.benchmark.run.environment import describe

OUTPUT = Path(__file__).parents[1] / "results" / "speed" / "profile.csv"


def measure(repeats: int, operators: int) -> list[dict[str, Any]]:
    """Latency, and the operators that take most of it; times in ms for one image."""
    torch.manual_seed(0)
    model = VmpfdAd().eval()
    image = torch.rand(1, 3, 256, 256)
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats + 5):
            start = time.perf_counter()
            model(image)
            seconds.append(time.perf_counter() - start)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(repeats):
                model(image)
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    rows = [{"operator": "total", "calls": "", "self_ms": round(1e3 * median(seconds[5:]), 3), "share": ""}]
    rows += [
        {
            "operator": event.key,
            "calls": event.count // repeats,
            "self_ms": round(event.self_cpu_time_total / 1e3 / repeats, 3),
            "share": round(event.self_cpu_time_total / total, 4),
        }
        for event in events[:operators]
    ]
    launched = sum(event.count for event in events) // repeats
    return [
        *rows,
        {"operator": "all operators", "calls": launched, "self_ms": round(total / 1e3 / repeats, 3), "share": 1},
    ]


def main() -> None:
    """Profile and write the rows of a label."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label", required=True)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--operators", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = describe(torch.device("cpu"))
    conditions = {name: machine[name] for name in ("device_name", "threads", "commit", "date")}
    measured = measure(arguments.repeats, arguments.operators)
    rows = [{"label": arguments.label} | row | conditions | {"torch": torch.__version__} for row in measured]
    if arguments.output.exists():
        with arguments.output.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["label"] != arguments.label] + rows
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[-1], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in measured:
        print(*row.values(), sep="\t")


if __name__ == "__main__":
    main()
