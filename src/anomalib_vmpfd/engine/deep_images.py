# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Images of 16 bits, seen through a window of grey values."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from anomalib.data import Batch, ImageItem
from lightning import Trainer
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as F  # noqa: N812

from .image_errors import ImageError, is_deep, is_deep_colour
from .learnt_data import Restricted

WHITE = 65535
PIXELS_AN_IMAGE = 10_000  # whose percentiles are taken

Window = tuple[float, float] | str


def parse_window(window: Window) -> tuple[float, float, bool]:
    """Read a window.

    Args:
        window (Window): Two grey values ``(lo, hi)``, or ``"lo,hi"``, or percentiles ``"1%,99%"``.

    Returns:
        tuple[float, float, bool]: Both ends, and whether they are percentiles.

    Raises:
        ValueError: If it is none of these.
    """
    parts = window.split(",") if isinstance(window, str) else [str(end) for end in window]
    percentiles = all(part.strip().endswith("%") for part in parts)
    try:
        low, high = (float(part.strip().removesuffix("%") if percentiles else part) for part in parts)
    except ValueError:
        low, high = 0.0, 0.0
    if not 0 <= low < high <= (100 if percentiles else WHITE):
        msg = (
            f"window={window!r} must be two grey values from 0 to {WHITE}, the lower one first, as 1000,20000, or two "
            "percentiles, as 1%,99%."
        )
        raise ValueError(msg)
    return low, high, percentiles


def window_of(window: Window, paths: Sequence[str]) -> Tensor:
    """Both ends of a window, as shares of white; percentiles are those of pixels of these images."""
    low, high, percentiles = parse_window(window)
    if percentiles:
        seen = []
        for path in paths:
            values = _grey_values(path).ravel()
            seen.append(values[:: max(1, len(values) // PIXELS_AN_IMAGE)])
        low, high = np.percentile(np.concatenate(seen), [low, high])
        if low >= high:
            msg = f"window={window!r}: both percentiles of the training images are the grey value {low:g}."
            raise ValueError(msg)
    return torch.tensor([low, high], dtype=torch.float32) / WHITE


def read_deep(path: str | Path) -> Tensor:
    """Read an image of 16 bits as shares of white, ``(3, H, W)``.

    Raises:
        ImageError: If it has 8 bits, or more than 16.
    """
    if not is_deep(path):
        msg = f"{path}: 8 bits a channel, but the model sees images of 16 bits through a window; give such images."
        raise ImageError(msg)
    values = torch.from_numpy(_grey_values(path) / WHITE)
    return values.movedim(-1, 0) if values.ndim == 3 else values.expand(3, -1, -1)


def _grey_values(path: str | Path) -> np.ndarray:
    """Grey values of an image of 16 bits, float32, ``(H, W)`` or, of one in colour, ``(H, W, 3)``."""
    if is_deep_colour(path):
        # as Pillow reads other images: no alpha, not turned
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
        if image is None or image.dtype != np.uint16:
            msg = f"{path}: 16 bits a channel that OpenCV cannot read; write it as PNG or TIFF."
            raise ImageError(msg)
        return image[..., ::-1].astype(np.float32)
    with Image.open(path) as opened:
        values = np.asarray(opened).astype(np.float32)
    if values.min() < 0 or values.max() > WHITE:
        msg = f"{path}: grey values from {values.min():g} to {values.max():g} do not fit into 16 bits; convert it."
        raise ImageError(msg)
    return values


class DeepCollate:
    """Makes batches whose images are read with all their bits; anomalib would cut off what is above 255.

    Args:
        collate (Callable[[list[ImageItem]], Batch]): Makes batches of the items.
    """

    def __init__(self, collate: Callable[[list[ImageItem]], Batch]) -> None:
        self._collate = collate

    def __call__(self, items: list[ImageItem]) -> Batch:
        """Make a batch."""
        for item in items:
            size = list(item.image.shape[-2:])
            item.image = F.resize(read_deep(item.image_path), size, antialias=True)
        return self._collate(items)


def read_through_window(trainer: Trainer, wanted: Callable[[], bool]) -> None:
    """Let all data of a trainer be read with 16 bits.

    Args:
        trainer (Trainer): The trainer, during a ``setup`` hook.
        wanted (Callable[[], bool]): Whether they are to be; asked when the data are, after a checkpoint was loaded.
    """

    def deep(loaders: Any) -> Any:  # noqa: ANN401
        if not wanted():
            return loaders
        return [_deep(each) for each in loaders] if isinstance(loaders, list) else _deep(loaders)

    fit = trainer.fit_loop
    for loop in (fit, fit.epoch_loop.val_loop, trainer.validate_loop, trainer.test_loop, trainer.predict_loop):
        source = loop._data_source  # noqa: SLF001
        while isinstance(source, Restricted):
            # of an earlier run of this trainer
            source = source.source
        loop._data_source = Restricted(source, deep)  # noqa: SLF001


def _deep(loader: DataLoader) -> DataLoader:
    loader.collate_fn = DeepCollate(loader.collate_fn)
    return loader
