# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Peak memory and seconds of exports and of anomalib's models, each in a process of its own.

    python perf/memory.py

Writes ``results/speed/memory.csv``; rows that were not measured this time stay as they were. ``peak_mb`` is the largest
resident memory of the whole process, its libraries included: ``idle`` rows are a process that has loaded the file and
run nothing. ``seconds`` is that process from start to end.

=========  ===========================================================================================================
what       how
=========  ===========================================================================================================
exports    ``VmpfdAd`` of defaults with drawn prototypes and components, which cost as much as learnt ones; with a
           ``static shape`` OpenVINO is told batch and size of the images before it compiles
peers      a model of ``peers.py`` is built and answers one image of 256 x 256 pixels
=========  ===========================================================================================================
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from peers import BUILDERS, SIDE

from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.benchmark.run.environment import describe
from anomalib_vmpfd.files import replace_rows

ROOT = Path(__file__).parents[1]
RUNTIMES = ("onnxruntime", "onnxruntime, no arena", "openvino", "openvino, static shape")
RUN = """
import sys
import numpy as np
runtime, path = sys.argv[1:3]
batch, side, threads = map(int, sys.argv[3:])
if runtime.startswith("onnxruntime"):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = "no arena" not in runtime
    session = onnxruntime.InferenceSession(path, options)
    run = lambda images: session.run(None, {session.get_inputs()[0].name: images})
else:
    import openvino
    core = openvino.Core()
    network = core.read_model(path)
    if "static" in runtime:
        network.reshape([batch or 1, 3, side, side])
    run = core.compile_model(network, "CPU", {"INFERENCE_NUM_THREADS": threads})
if batch:
    run(np.random.default_rng(0).random((batch, 3, side, side), np.float32))
"""


WATCH = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def measured(command: list[str]) -> dict[str, float]:
    """Largest resident memory of a command in megabytes, and its seconds."""
    start = time.perf_counter()
    # by a small process: what is forked from a large one counts that one's memory as its own
    seen = subprocess.run([sys.executable, "-c", WATCH, *command], check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    return {"peak_mb": round(int(seen.stdout) / 1024), "seconds": round(time.perf_counter() - start, 1)}


def row(what: str, image_size: int, runtime: str, figures: dict[str, float]) -> dict[str, Any]:
    """One line of the table, printed as it comes."""
    line = {"what": what, "image_size": image_size, "runtime": runtime, **figures}
    print(*line.values(), sep="\t", flush=True)
    return line


def drawn(side: int) -> VmpfdAd:
    """A model of defaults that has learnt chance."""
    model = VmpfdAd(image_size=(side, side), visualizer=False).eval()
    generator = torch.Generator().manual_seed(0)
    for name, buffer in model.model.named_buffers():
        if "products" in name or "components_" in name:
            buffer.copy_(torch.randn(buffer.shape, generator=generator) / buffer.shape[-1] ** 0.5)
    return model


def exports(sides: list[int], folder: Path, threads: int) -> list[dict[str, Any]]:
    """Rows of the exports of each size, idle and with batches of 1 and 4."""
    rows = []
    for side in sides:
        model = drawn(side)
        onnx, openvino = model.to_onnx(folder / str(side)), model.to_openvino(folder / str(side))
        for runtime in RUNTIMES:
            path = openvino if runtime.startswith("openvino") else onnx
            for batch in (0, 1, 4):
                figures = measured([sys.executable, "-c", RUN, runtime, *map(str, (path, batch, side, threads))])
                rows.append(row(f"VmpfdAd, batch of {batch}" if batch else "VmpfdAd, idle", side, runtime, figures))
    return rows


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sides", nargs="*", type=int, default=[256, 1024], help="image sizes of exports (%(default)s)"
    )
    parser.add_argument("--peers", nargs="*", choices=BUILDERS, default=list(BUILDERS))
    parser.add_argument("--threads", type=int, default=1, help="threads of a runtime (%(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "speed" / "memory.csv")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = exports(arguments.sides, Path(name), arguments.threads)
        for peer in arguments.peers:
            command = [sys.executable, str(ROOT / "perf" / "peers.py"), peer, str(arguments.threads)]
            rows.append(row(peer, SIDE, "torch", measured(command)))
    machine = describe(torch.device("cpu"))
    conditions = {"threads": arguments.threads} | {key: machine[key] for key in ("device_name", "commit", "date")}
    new = [each | conditions | {"torch": torch.__version__} for each in rows]
    replace_rows(arguments.output, new, ("what", "image_size", "runtime"))


if __name__ == "__main__":
    main()
