# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Image files that anybody may have dropped: read as in training, or refused with the reason."""

from pathlib import Path

import numpy as np
from anomalib.data.utils.image import read_image
from PIL import Image

from anomalib_vmpfd.engine.deep_images import read_deep
from anomalib_vmpfd.engine.image_errors import ImageError, refuse_deep_images, unreadable

MAX_PIXELS = 50_000_000  # 600 MB in float32


def read_part(file: Path, *, deep: bool) -> np.ndarray:
    """Read an image.

    Args:
        file (Path): The image.
        deep (bool): Whether the model sees 16 bits.

    Returns:
        np.ndarray: ``(3, H, W)``, float32 in [0, 1].

    Raises:
        ImageError: If it is damaged, is no image, has too many pixels or the wrong number of bits.
    """
    try:
        return _read(file, deep)
    except ImageError:
        raise
    except Exception as error:
        # a damaged file makes Pillow raise nearly anything
        msg = f"{file}: {unreadable([file]).get(str(file), error)}."
        raise ImageError(msg) from error


def _read(file: Path, deep: bool) -> np.ndarray:
    with Image.open(file) as opened:
        width, height = opened.size
    if width * height > MAX_PIXELS:
        msg = (
            f"{file}: {width} x {height} pixels are more than {MAX_PIXELS // 10**6} million; judge it with "
            "`anomalib-vmpfd predict-tiles`."
        )
        raise ImageError(msg)
    if not deep:
        refuse_deep_images([file])
    return (read_deep(file) if deep else read_image(file, as_tensor=True)).numpy()


def for_display(image: np.ndarray, *, deep: bool) -> np.ndarray:
    """An image as :func:`read_part` gives it, ``(H, W, 3)``; grey values of 16 bits are spread to be seen."""
    if deep:
        low, high = image.min(), image.max()
        image = (image - low) / max(high - low, 1e-6)
    return image.transpose(1, 2, 0)
