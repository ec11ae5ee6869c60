# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Predicted masks and anomaly maps as files, at the size of the original image."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from anomalib_vmpfd.files import write_atomically


def save_mask(path: Path, mask: np.ndarray, size: tuple[int, int]) -> None:
    """Save a mask as an 8-bit picture of 0 and 255.

    Args:
        path (Path): The file; its suffix names the format.
        mask (np.ndarray): Mask ``(h, w)``, boolean.
        size (tuple[int, int]): Height and width of the original image.
    """
    _save(path, Image.fromarray(mask.astype(np.uint8) * 255).resize(size[::-1], Image.Resampling.NEAREST))


def save_map(path: Path, anomaly_map: np.ndarray, size: tuple[int, int]) -> None:
    """Save an anomaly map as a TIFF of 32-bit floats, not scaled, interpolated linearly.

    Args:
        path (Path): The file.
        anomaly_map (np.ndarray): Map ``(h, w)``.
        size (tuple[int, int]): Height and width of the original image.
    """
    _save(path, Image.fromarray(anomaly_map.astype(np.float32)).resize(size[::-1], Image.Resampling.BILINEAR))


def _save(path: Path, picture: Image.Image) -> None:
    content = io.BytesIO()
    picture.save(content, Image.registered_extensions()[path.suffix])
    write_atomically(path, content.getbuffer())
