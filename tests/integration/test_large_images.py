# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A large image, from cutting normal ones for the training to a row and a map."""

import json
from pathlib import Path

import numpy as np
import pytest

import tiny
from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.cli import main

TILE = 64
SCRATCH = (slice(123, 129), slice(300, 340))


def cast_metal(seed: int, height: int, width: int) -> np.ndarray:
    """The same everywhere and in every direction."""
    generator = np.random.default_rng(seed)
    grains = generator.normal(0, 6, (height, width, 1)) + generator.normal(0, 2, (height, width, 3))
    return (128 + grains).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """Rows and maps by name of a scratched and of a normal image, which are no multiples of anything."""
    from anomalib.data import Folder

    folder = tmp_path_factory.mktemp("large")
    tiny.save(folder / "large" / "1.png", cast_metal(0, 300, 350))
    cut = ["--data", str(folder / "large"), "--output", str(folder / "tiles" / "good"), "--size", f"[{TILE},{TILE}]"]
    assert main(["tile", *cut]) == 0
    splits = {"val_split_mode": "none", "test_split_mode": "none"}
    data = Folder("tiles", normal_dir="good", root=folder / "tiles", num_workers=0, **splits)
    model = VmpfdAd((TILE, TILE), density_args={"num_components": 256}, image_fpr=1e-3, visualizer=False)
    engine = tiny.engine(folder)
    engine.fit(model, datamodule=data)
    scratched = cast_metal(1, 251, 403)
    scratched[SCRATCH] = 220
    tiny.save(folder / "new" / "scratched.png", scratched)
    tiny.save(folder / "new" / "good.png", cast_metal(2, 251, 403))
    arguments = ["--model", engine.trainer.checkpoint_callback.best_model_path, "--data", str(folder / "new")]
    assert main(["predict-tiles", *arguments, "--output", str(folder / "out"), "--overlap", "24"]) == 0
    rows = map(json.loads, (folder / "out" / "predictions.jsonl").read_text(encoding="utf-8").splitlines())
    return {Path(row["path"]).stem: (row, np.load(row["anomaly_map"])) for row in rows}


def test_a_scratch_of_six_pixels_is_found_where_it_is(predicted):
    row, anomaly_map = predicted["scratched"]
    assert anomaly_map.shape == (251, 403)
    assert row["label"]
    assert row["score"] > predicted["good"][0]["score"]
    assert anomaly_map[SCRATCH].max() == anomaly_map.max()


def test_no_seam_shows(predicted):
    """Where a tile begins or ends the map does not change more from pixel to pixel than elsewhere."""
    _, anomaly_map = predicted["good"]
    from anomalib_vmpfd.decide.tiles import starts

    for axis, length in enumerate(anomaly_map.shape):
        steps = np.abs(np.diff(anomaly_map, axis=axis)).mean(1 - axis)
        borders = [first - 1 for first in starts(length, TILE, 24) if first > 0]
        borders += [first + TILE - 1 for first in starts(length, TILE, 24) if first + TILE < length]
        assert steps[borders].mean() < 1.5 * np.median(steps), (steps[borders] / np.median(steps)).round(1)
