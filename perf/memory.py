# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Peak memory and seconds of exports, of anomalib's models and of a large image in tiles, each in a process of its own.

    python perf/memory.py

Writes ``results/speed/memory.csv``. ``peak_mb`` is the largest resident memory of the whole process, its libraries
included: ``idle`` rows are a process that has loaded the file and run nothing. ``seconds`` is that process from start
to end.

=========  ===========================================================================================================
what       how
=========  ===========================================================================================================
exports    ``VmpfdAd`` of defaults with drawn prototypes and components, which cost as much as learnt ones
peers      a model of ``peers.py`` is built and answers one image of 256 x 256 pixels
tiles      ``anomalib-vmpfd predict-tiles`` on a generated image of 4,000 x 3,000 pixels with a scratch of 6 pixels, by
           a model of 512 prototypes that was trained on tiles of another one; ``found``: the map's peak is the scratch
=========  ===========================================================================================================
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from peers import BUILDERS, SIDE
from PIL import Image

from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.benchmark.run.environment import describe

ROOT = Path(__file__).parents[1]
TILE = 256
SCRATCH = (slice(1500, 1506), slice(2000, 2160))
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
    run = openvino.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": threads})
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


def row(what: str, image_size: int, runtime: str, figures: dict[str, float], found: bool | str = "") -> dict[str, Any]:
    """One line of the table, printed as it comes."""
    line = {"what": what, "image_size": image_size, "runtime": runtime, **figures, "found": found}
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
        path = drawn(side).to_onnx(folder / str(side))
        for runtime in ("onnxruntime", "onnxruntime, no arena", "openvino"):
            for batch in (0, 1, 4):
                figures = measured([sys.executable, "-c", RUN, runtime, *map(str, (path, batch, side, threads))])
                rows.append(row(f"VmpfdAd, batch of {batch}" if batch else "VmpfdAd, idle", side, runtime, figures))
    return rows


def texture(seed: int, height: int, width: int) -> np.ndarray:
    """Brushed metal, uint8 ``(H, W, 3)``."""
    generator = np.random.default_rng(seed)
    lines = generator.normal(0, 8, (height, 1, 1)) + generator.normal(0, 4, (height, width, 1))
    return (128 + lines + generator.normal(0, 2, (height, width, 3))).clip(0, 255).astype(np.uint8)


def tiles(folder: Path) -> list[dict[str, Any]]:
    """Row of a large image with a scratch, by a checkpoint and by its ONNX export."""
    for index in range(2):
        (folder / "large").mkdir(parents=True, exist_ok=True)
        Image.fromarray(texture(index, 2 * TILE, 4 * TILE)).save(folder / "large" / f"{index}.png")
    own = [sys.executable, "-c", "import sys; from anomalib_vmpfd.cli import main; sys.exit(main())"]
    cut = ["tile", "--data", str(folder / "large"), "--output", str(folder / "tiles" / "good")]
    subprocess.run([*own, *cut], check=True)  # noqa: S603
    splits = {"val_split_mode": "none", "test_split_mode": "none"}
    data = Folder("tiles", normal_dir="good", root=folder / "tiles", num_workers=0, **splits)
    engine = Engine(default_root_dir=folder, accelerator="cpu", logger=False, limit_val_batches=0)
    model = VmpfdAd(image_size=(TILE, TILE), density_args={"num_components": 512}, visualizer=False)
    engine.fit(model, datamodule=data)
    checkpoint = Path(engine.trainer.checkpoint_callback.best_model_path)
    image = texture(9, 3000, 4000)
    image[SCRATCH] = 200
    (folder / "parts").mkdir()
    Image.fromarray(image).save(folder / "parts" / "scratched.png")
    rows = []
    for runtime, path in (("torch", checkpoint), ("onnxruntime", model.to_onnx(folder))):
        out = folder / runtime
        arguments = ["--model", str(path), "--data", str(folder / "parts"), "--output", str(out)]
        figures = measured([*own, "predict-tiles", *arguments])
        anomaly_map = np.load(out / "scratched.npy", mmap_mode="r")
        line, column = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
        found = all(
            part.start - 8 <= place < part.stop + 8 for part, place in zip(SCRATCH, (line, column), strict=True)
        )
        rows.append(row(f"4,000 x 3,000 in tiles of {TILE}", TILE, runtime, figures, found))
    return rows


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sides", nargs="*", type=int, default=[256, 1024], help="image sizes of exports (%(default)s)"
    )
    parser.add_argument("--peers", nargs="*", choices=BUILDERS, default=list(BUILDERS))
    parser.add_argument("--no-tiles", action="store_true", help="leave the large image out")
    parser.add_argument("--threads", type=int, default=1, help="threads of a runtime (%(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "speed" / "memory.csv")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = exports(arguments.sides, Path(name), arguments.threads)
        for peer in arguments.peers:
            command = [sys.executable, str(ROOT / "perf" / "peers.py"), peer, str(arguments.threads)]
            rows.append(row(peer, SIDE, "torch", measured(command)))
        rows += [] if arguments.no_tiles else tiles(Path(name) / "tiles")
    machine = describe(torch.device("cpu"))
    conditions = {"threads": arguments.threads} | {key: machine[key] for key in ("device_name", "commit", "date")}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], *conditions, "torch"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(each | conditions | {"torch": torch.__version__} for each in rows)


if __name__ == "__main__":
    main()
