# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Peak memory, seconds and seams of an image of 4,000 x 3,000 pixels that is judged in tiles.

    python perf/large_image.py

Writes ``results/speed/large_image.csv``. The image is brushed metal that is generated, with a scratch 6 pixels wide;
models are trained on tiles of other such images.

=====================  ===============================================================================================
row                    how
=====================  ===============================================================================================
large image            ``anomalib-vmpfd predict-tiles`` with ``VmpfdAd`` of defaults, from its checkpoint and from its
                       ONNX export. ``peak_mb`` is the largest resident memory of that process, its libraries included,
                       ``found`` whether the map's peak is the scratch. ``border_steps``: how far the map of the same
                       image without a scratch changes from pixel to pixel at borders of tiles, over the median of all
                       rows and columns; 1 is no seam
crop, against untiled  The local branch alone, of which a map of a whole image exists: the largest difference of the map
                       in tiles of a crop of 1,024 x 768 pixels from the map of that crop at once, within 8 pixels of a
                       tile's border and elsewhere; both maps lie in [0, 1]
=====================  ===============================================================================================
"""

import argparse
import csv
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from memory import measured
from PIL import Image

from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.benchmark.run.environment import describe
from anomalib_vmpfd.decide.runtimes import Checkpoint
from anomalib_vmpfd.decide.tiles import predict_in_tiles, starts
from anomalib_vmpfd.decide.tiles_command import tile as cut_into_tiles

ROOT = Path(__file__).parents[1]
TILE, OVERLAP = 256, 32
SIZE = (3000, 4000)
SCRATCH = (slice(1500, 1506), slice(2000, 2160))
CROP = (slice(1200, 1968), slice(1700, 2724))
NEAR = 8
OWN = [sys.executable, "-c", "import sys; from anomalib_vmpfd.cli import main; sys.exit(main())"]


def texture(seed: int, height: int, width: int) -> np.ndarray:
    """Brushed metal, uint8 ``(H, W, 3)``."""
    generator = np.random.default_rng(seed)
    lines = generator.normal(0, 8, (height, 1, 1)) + generator.normal(0, 4, (height, width, 1))
    return (128 + lines + generator.normal(0, 2, (height, width, 3))).clip(0, 255).astype(np.uint8)


def scratched() -> np.ndarray:
    """The large image."""
    image = texture(9, *SIZE)
    image[SCRATCH] = 200
    return image


def train(folder: Path, **arguments: Any) -> tuple[VmpfdAd, Path]:  # noqa: ANN401
    """A model of tiles and its checkpoint."""
    if not (folder / "large").is_dir():
        (folder / "large").mkdir()
        for index in range(2):
            Image.fromarray(texture(index, 2 * TILE, 4 * TILE)).save(folder / "large" / f"{index}.png")
        cut_into_tiles(folder / "large", folder / "tiles" / "good")
    splits = {"val_split_mode": "none", "test_split_mode": "none"}
    data = Folder("tiles", normal_dir="good", root=folder / "tiles", num_workers=0, **splits)
    engine = Engine(default_root_dir=folder, accelerator="cpu", logger=False, limit_val_batches=0)
    model = VmpfdAd(image_size=(TILE, TILE), visualizer=False, **arguments)
    engine.fit(model, datamodule=data)
    return model, Path(engine.trainer.checkpoint_callback.best_model_path)


def borders(length: int) -> list[int]:
    """First pixels of tiles, and those after their last ones, inside of an image."""
    firsts = starts(length, TILE, OVERLAP)
    return [first for first in firsts if first] + [first + TILE for first in firsts if first + TILE < length]


def border_steps(anomaly_map: np.ndarray) -> float:
    """Mean step over the borders of tiles, relative to the median step; the larger one of both axes."""
    ratios = []
    for axis, length in enumerate(anomaly_map.shape):
        steps = np.abs(np.diff(anomaly_map, axis=axis)).mean(1 - axis)
        ratios.append(steps[[border - 1 for border in borders(length)]].mean() / np.median(steps))
    return float(max(ratios))


def large(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of the large image, by a checkpoint and by its ONNX export."""
    model, checkpoint = train(folder)
    for name, image in (("scratched", scratched()), ("good", texture(9, *SIZE))):
        (folder / name).mkdir()
        Image.fromarray(image).save(folder / name / "image.png")
    for runtime, path in (("torch", checkpoint), ("onnxruntime", model.to_onnx(folder))):
        maps, figures = {}, {}
        for name in ("good", "scratched") if runtime == "torch" else ("scratched",):
            arguments = ["--model", str(path), "--data", str(folder / name), "--output", str(folder / runtime / name)]
            figures = measured([*OWN, "predict-tiles", *arguments, "--overlap", str(OVERLAP)])
            maps[name] = np.load(folder / runtime / name / "image.npy", mmap_mode="r")
        peak = np.unravel_index(maps["scratched"].argmax(), SIZE)
        found = all(part.start - NEAR <= place < part.stop + NEAR for part, place in zip(SCRATCH, peak, strict=True))
        seams = {"border_steps": round(border_steps(maps["good"]), 2)} if "good" in maps else {}
        yield {"what": "large image", "runtime": runtime, **figures, "found": found, **seams}


def against_untiled(folder: Path) -> dict[str, Any]:
    """Row of the crop: the map in tiles, and that of the same model without tiles."""
    _, checkpoint = train(folder, reconstruction=None)
    crop = scratched()[CROP]
    predict = Checkpoint(checkpoint)
    tiled = predict_in_tiles(predict, crop, (TILE, TILE), OVERLAP).anomaly_map
    whole = VmpfdAd(image_size=crop.shape[:2], reconstruction=None, visualizer=False).eval()
    # all but the statistics of locations, of which no map is made
    known = {name: value for name, value in predict.model.state_dict().items() if ".locations." not in name}
    whole.load_state_dict(known, strict=False)
    predict.model = whole
    untiled = predict(crop.transpose(2, 0, 1).astype(np.float32) / 255).anomaly_map
    near = np.zeros(tiled.shape, bool)
    for axis, length in enumerate(tiled.shape):
        for border in borders(length):
            near.swapaxes(0, axis)[border - NEAR : border + NEAR] = True
    differences = np.abs(tiled - untiled)
    return {
        "what": "crop, against untiled",
        "runtime": "torch",
        "border_difference": round(float(differences[near].max()), 4),
        "other_difference": round(float(differences[~near].max()), 4),
    }


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "speed" / "large_image.csv")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for part in ([against_untiled(Path(folder))], large(Path(folder))):
            for row in part:
                rows.append(row)
                print(row, flush=True)
    machine = describe(torch.device("cpu"))
    conditions = {key: machine[key] for key in ("threads", "device_name", "commit", "date", "torch_version")}
    columns = dict.fromkeys(name for row in [*rows[::-1], conditions] for name in row)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | conditions for row in rows)


if __name__ == "__main__":
    main()
