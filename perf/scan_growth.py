# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Time and memory of the selective scan over the number of tokens, beside the naive loop and beside attention.

    python perf/scan_growth.py

Writes ``scan_growth.csv`` and ``scan_growth.png`` into ``results/speed``. Every row comes from a process of its own, so
that peak memory is that of the row. All rows have the width of the encoder (192, so 768 channels in two directions, 16
states):

=============  =====================================================================================================
backend        what runs
=============  =====================================================================================================
loop           the scan as mamba-ssm's ``selective_scan_ref`` does it: one indexed token after the other in autograd
chunked, c     the scan, backends of ``anomalib_vmpfd.ops.selective_scan``
vim-chunked    a whole ViM block on the chunked backend
vim-c          a whole ViM block on the C kernel
attention      a whole attention block of the same width, ``F.scaled_dot_product_attention`` with heads of 64
=============  =====================================================================================================
"""

import argparse
import csv
import json
import math
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from einops import einsum, rearrange
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.nn.vision_mamba_block import VisionMambaBlock
from anomalib_vmpfd.ops.selective_scan import selective_scan

ROOT = Path(__file__).parents[1]
BACKENDS = ("loop", "chunked", "c", "vim-chunked", "vim-c", "attention")
DIM, STATES = 192, 16


class AttentionBlock(nn.Module):
    """Pre-norm self-attention with a residual, as wide as the ViM block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(DIM)
        self.qkv = nn.Linear(DIM, 3 * DIM, bias=False)
        self.out = nn.Linear(DIM, DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend, ``(B, L, D)`` to the same shape."""
        q, k, v = rearrange(self.qkv(self.norm(x)), "b l (three h d) -> three b h l d", three=3, d=64)
        return x + self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "b h l d -> b l (h d)"))


def loop_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:  # noqa: N803
    """Every token indexed out of tensors of the full length: the backward pass is quadratic in it."""
    B, C = (x.repeat_interleave(u.shape[1] // x.shape[1], dim=1) for x in (B, C))  # noqa: N806
    decay = torch.exp(einsum(delta, A, "b d l, d n -> b d l n"))
    drive = einsum(delta, B, u, "b d l, b d n l, b d l -> b d l n")
    state, outputs = u.new_zeros(*u.shape[:2], STATES), []
    for t in range(u.shape[-1]):
        state = decay[:, :, t] * state + drive[:, :, t]
        outputs.append(einsum(state, C[..., t], "b d n, b d n -> b d"))
    return torch.stack(outputs, dim=-1)


def build(backend: str, batch: int, tokens: int) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """Return what runs and the leaves it is differentiated for."""
    torch.manual_seed(0)
    if backend == "attention" or backend.startswith("vim-"):
        block = AttentionBlock() if backend == "attention" else VisionMambaBlock(DIM, backend=backend[4:])
        x = torch.randn(batch, tokens, DIM, requires_grad=True)
        return lambda: block(x), [x, *block.parameters()]
    channels = 4 * DIM
    u, delta = torch.randn(batch, channels, tokens), 0.1 * torch.rand(batch, channels, tokens)
    A = -torch.arange(1.0, STATES + 1).repeat(channels, 1)  # noqa: N806
    B, C = torch.randn(2, batch, 2, STATES, tokens).unbind()  # noqa: N806
    leaves = [x.requires_grad_() for x in (u, delta, A, B, C)]
    if backend == "loop":
        return lambda: loop_scan(*leaves), leaves
    return lambda: selective_scan(*leaves, backend=backend), leaves


def least_ms(run: Callable[[], object], seconds: float, clock: Callable[[], float]) -> float:
    """Least time of as many runs as fit into the seconds, at least three unless one run fills them."""
    times: list[float] = []
    while not times or sum(times) < seconds or (len(times) < 3 and times[0] < seconds):
        start = clock()
        run()
        times.append(clock() - start)
    return 1e3 * min(times)


def memory_mb(field: str) -> float:
    """Read ``VmRSS`` or ``VmHWM`` of this process."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return int(re.search(rf"{field}:\s+(\d+)", status.read_text(encoding="utf-8")).group(1)) / 2**10


def measure(backend: str, batch: int, tokens: int, threads: int, seconds: float) -> dict[str, float]:
    """Measure one row in this process."""
    torch.set_num_threads(threads)
    # other work on the machine stretches the time of the wall, not that of the processor
    clock = time.process_time if threads == 1 else time.perf_counter

    def step(forward: Callable[[], Tensor], leaves: list[Tensor]) -> None:
        torch.autograd.grad(forward().sum(), leaves)

    step(*build(backend, 1, 8))
    forward, leaves = build(backend, batch, tokens)
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5", encoding="utf-8")  # resets VmHWM
    before = memory_mb("VmRSS")
    step(forward, leaves)
    peak = memory_mb("VmHWM") - before
    forward_backward = least_ms(lambda: step(forward, leaves), seconds, clock)
    with torch.inference_mode():
        forward()
        forward_ms = least_ms(forward, seconds, clock)
    return {"forward_ms": forward_ms, "forward_backward_ms": forward_backward, "peak_memory_mb": peak}


def measure_in_subprocess(arguments: argparse.Namespace, backend: str, tokens: int) -> dict[str, Any]:
    """One row, measured in a process of its own: the peak of its memory is that of the backend."""
    values = (backend, arguments.batch, tokens, arguments.threads, arguments.seconds)
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", json.dumps(values)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    measured = {name: round(value, 2) for name, value in json.loads(result.stdout).items()}
    return {"tokens": tokens, "backend": backend, **measured}


def least_row(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Take the least of every figure over the rounds."""
    figures = {name: min(row[name] for row in rounds) for name in list(rounds[0])[2:]}
    return {"tokens": rounds[0]["tokens"], "backend": rounds[0]["backend"], **figures}


def conditions(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.exists() else []
    return {
        "batch": arguments.batch,
        "dim": DIM,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "clock": "processor" if arguments.threads == 1 else "wall",
        "dtype": "float32",
        "cpu": names[0] if names else platform.processor(),
        "torch": torch.__version__,
        "commit": commit.stdout.strip(),
    }


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw time and memory over the number of tokens."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    columns = {
        "forward_ms": "forward [ms]",
        "forward_backward_ms": "forward and backward [ms]",
        "peak_memory_mb": "peak memory of forward and backward [MB]",
    }
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        for backend in dict.fromkeys(row["backend"] for row in rows):
            points = [(row["tokens"], row[column]) for row in rows if row["backend"] == backend and row[column] > 0]
            style = "--" if backend == "attention" else ":" if backend == "loop" else "-"
            axis.plot(*zip(*points, strict=True), style, marker="o", label=backend)
        axis.set(xscale="log", yscale="log", xlabel="tokens", ylabel=label)
        axis.set_xticks(sorted({row["tokens"] for row in rows}), sorted({row["tokens"] for row in rows}))
        axis.minorticks_off()
        axis.grid(visible=True, alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=120)


def growth(rows: list[dict[str, Any]], column: str) -> dict[str, float]:
    """Growth from 256 tokens (or the fewest above) to the most, over linear growth."""
    result = {}
    for backend in dict.fromkeys(row["backend"] for row in rows):
        ours = [row for row in rows if row["backend"] == backend and row["tokens"] >= 256]
        if len(ours) > 1 and ours[0][column] > 0:
            result[backend] = ours[-1][column] / ours[0][column] / (ours[-1]["tokens"] / ours[0]["tokens"])
    return result


def main() -> None:
    """Measure every backend at every length, write the table and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--loop-max-tokens", type=int, default=256, help="more would take minutes a step")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each figure in a round")
    parser.add_argument("--rounds", type=int, default=3, help="every row is the least of so many processes")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "speed")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(*arguments.worker)))
        return

    common = conditions(arguments)
    rounds: dict[tuple[int, str], list[dict[str, Any]]] = {}
    # rounds outermost, then tokens: a change of the machine's load then touches all rows alike
    for _ in range(arguments.rounds):
        for tokens in sorted(arguments.tokens):
            for backend in arguments.backends:
                if backend == "loop" and tokens > arguments.loop_max_tokens:
                    continue
                load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else math.nan
                measured = measure_in_subprocess(arguments, backend, tokens) | {"load_before": load}
                rounds.setdefault((tokens, backend), []).append(measured)
                print(measured, flush=True)
    rows = [least_row(measured) | common for measured in rounds.values()]
    arguments.output.mkdir(parents=True, exist_ok=True)
    with (arguments.output / "scan_growth.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, arguments.output / "scan_growth.png")
    for column in ("forward_ms", "forward_backward_ms", "peak_memory_mb"):
        ratios = ", ".join(f"{backend} {ratio:.2f}" for backend, ratio in growth(rows, column).items())
        print(f"growth of {column} over linear: {ratios}")


if __name__ == "__main__":
    main()
