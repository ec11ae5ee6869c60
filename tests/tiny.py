# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A model and data small enough to be broken many times."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
SETTINGS = {
    "image_size": (SIDE, SIDE),
    "encoder_args": {"depth": 1, "dim": 16},
    "reconstruction": "descriptors",
    "density_args": {"num_components": 32},
    "epochs": 1,
}


def texture(seed: int, side: int = SIDE) -> np.ndarray:
    """RGB picture of a normal part, uint8: a grey gradient with noise."""
    generator = np.random.default_rng(seed)
    gradient = np.linspace(80, 160, side)[:, None, None] + generator.normal(0, 10, (side, side, 1))
    return (gradient + generator.normal(0, 2, (side, side, 3))).clip(0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def normals(root: Path, count: int = 12) -> Path:
    """Folder with normal images in ``good``."""
    for index in range(count):
        save(root / "good" / f"{index:03}.png", texture(index))
    return root


def with_defects(root: Path, count: int = 4) -> Path:
    """Folder with ``good``, ``good_test``, ``bad`` and ``mask``."""
    normals(root)
    for index in range(count):
        save(root / "good_test" / f"{index:03}.png", texture(100 + index))
        picture, mask = texture(200 + index), np.zeros((SIDE, SIDE), np.uint8)
        place = slice(10 + 8 * index, 26 + 8 * index)
        picture[place, place] = 250
        mask[place, place] = 255
        save(root / "bad" / f"{index:03}.png", picture)
        save(root / "mask" / f"{index:03}.png", mask)
    return root


def model(**arguments):
    from anomalib_vmpfd import VmpfdAd

    return VmpfdAd(**({**SETTINGS, "visualizer": False} | arguments))


def engine(folder: Path, **arguments):
    from anomalib.engine import Engine

    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    return Engine(default_root_dir=folder, **(quiet | {"limit_val_batches": 0} | arguments))


def data(folder: Path, **arguments):
    """Datamodule of :func:`normals` or :func:`with_defects`."""
    from anomalib.data import Folder

    tests = {"abnormal_dir": "bad", "normal_test_dir": "good_test", "mask_dir": "mask"}
    present = {key: name for key, name in tests.items() if (folder / name).is_dir()}
    splits = {"val_split_mode": "none", "test_split_mode": "from_dir" if present else "none"}
    sizes = {"train_batch_size": 4, "eval_batch_size": 4, "num_workers": 0}
    named = {"root": folder, "normal_dir": "good"} | present
    return Folder("tiny", **(named | splits | sizes | arguments))
