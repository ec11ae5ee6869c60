# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-vmpfd tile`` and ``predict-tiles``: large images for training and prediction."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
from anomalib.data.utils.image import get_image_filenames_from_dir
from PIL import Image

from anomalib_vmpfd.engine.deep_images import WHITE, read_deep
from anomalib_vmpfd.engine.image_errors import ImageError, is_deep, is_deep_colour, refuse_deep_images

from .command import run_command
from .runtimes import ASSURED, Checkpoint, Exported
from .tiles import cut, predict_in_tiles


def main_tile(argv: list[str]) -> int:
    """Run ``anomalib-vmpfd tile``; 0, or 2 with one line of what is wrong."""
    return run_command("tile", tile, argv, lambda _: 0)


def main_predict(argv: list[str]) -> int:
    """Run ``anomalib-vmpfd predict-tiles``; 0, or 2 with one line of what is wrong."""
    return run_command("predict-tiles", predict_tiles, argv, lambda _: 0)


def tile(data: Path, output: Path, size: tuple[int, int] = (256, 256), overlap: int = 32) -> None:
    """Cut normal images into tiles of as many bits, to train a model of ``image_size`` ``size`` on.

    Args:
        data (Path): Folder with images.
        output (Path): Folder for the tiles, files named after image, row and column.
        size (tuple[int, int]): Height and width of a tile in pixels.
        overlap (int): Pixels that neighbouring tiles share.
    """
    output.mkdir(parents=True, exist_ok=True)
    written = 0
    files = get_image_filenames_from_dir(data)
    for path in files:
        stem = "_".join(path.relative_to(data).with_suffix("").parts)
        deep = is_deep(path)
        # OpenCV writes BGR, and 16 bits in colour
        channels = slice(1) if deep and not is_deep_colour(path) else slice(None, None, -1)
        for (top, left), pixels in cut(_read(path, deep), size, overlap):
            encoded = cv2.imencode(".png", pixels[..., channels])[1]
            (output / f"{stem}_{top:05}_{left:05}.png").write_bytes(encoded.tobytes())
            written += 1
    sys.stdout.write(f"{written} tiles of {len(files)} images are in {output}\n")


def predict_tiles(model: Path, data: Path, output: Path, overlap: int = 32) -> None:
    """Judge large images in tiles of the model's image size; an image is anomalous where one of its tiles is.

    Args:
        model (Path): Checkpoint of a model that was trained on tiles, or its ``.onnx`` or ``.xml`` export.
        data (Path): Folder with images.
        output (Path): Folder for ``predictions.jsonl``, a line an image as it comes, and for the maps, ``.npy``.
        overlap (int): Pixels that neighbouring tiles share.
    """
    predict: Checkpoint | Exported = (
        Exported(model, ASSURED) if model.suffix in {".onnx", ".xml"} else Checkpoint(model)
    )
    size = predict.image_size
    if size is None:
        msg = f"{model} does not say its image size; export it again."
        raise ValueError(msg)
    files = get_image_filenames_from_dir(data)
    if not predict.reads_deep:
        refuse_deep_images(files)
    output.mkdir(parents=True, exist_ok=True)
    with (output / "predictions.jsonl").open("w", encoding="utf-8") as rows:
        for path in files:
            seen = predict_in_tiles(predict, _read(path, predict.reads_deep), (size[0], size[1]), overlap)
            saved = output / path.relative_to(data).with_suffix(".npy")
            saved.parent.mkdir(parents=True, exist_ok=True)
            np.save(saved, seen.anomaly_map)
            row = {"path": str(path), "score": seen.score, "label": seen.label, "anomaly_map": str(saved)}
            rows.write(json.dumps(row) + "\n")
            rows.flush()
            sys.stdout.write(f"{path}: {seen.score:.4f}, {'anomalous' if seen.label else 'normal'}\n")


def _read(path: Path, deep: bool) -> np.ndarray:
    """Pixels of 8 or, of a deep image, of 16 bits, ``(H, W, 3)``."""
    try:
        if deep:
            return (read_deep(path) * WHITE).round().permute(1, 2, 0).numpy().astype(np.uint16)
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        msg = f"{path} cannot be read ({error}). Replace or remove it."
        raise ImageError(msg) from error
