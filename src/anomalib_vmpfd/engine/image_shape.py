# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What a fixed size of the images does to their shape."""

import contextlib
import logging
import math
import statistics
from collections.abc import Sequence

from PIL import Image

from anomalib_vmpfd.nn.image_size import nearest_size

logger = logging.getLogger(__name__)

STEP = 32  # sides are multiples of it
SAMPLE = 16
SQUEEZED = 1.5  # from this factor between the sides on a user is told


def size_of_shape(ratio: float, pixels: int) -> tuple[int, int]:
    """Size of about so many pixels for images of a shape.

    Args:
        ratio (float): Height over width.
        pixels (int): Number of pixels.

    Returns:
        tuple[int, int]: Height and width in pixels, multiples of 32.

    Example:
        >>> size_of_shape(1240 / 500, 256 * 256)
        (416, 160)
    """
    height = math.sqrt(pixels * ratio)
    return nearest_size(height, height / ratio, STEP)


def check_built_for(model: str, size: Sequence[int] | None, image_size: tuple[int, int]) -> None:
    """Refuse a pre-processor that makes images of another size than a model was built for.

    Args:
        model (str): Name of the model's class.
        size (Sequence[int] | None): Height and width that the pre-processor makes; ``None`` where it leaves them.
        image_size (tuple[int, int]): Height and width that the model was built for.

    Raises:
        ValueError: If they differ; says which argument to give.
    """
    if size is not None and tuple(size) != image_size:
        msg = (
            f"The pre-processor makes images of {size[0]}x{size[1]} pixels, but the model was built for "
            f"{image_size[0]}x{image_size[1]}; give {model}(image_size={tuple(size)})."
        )
        raise ValueError(msg)


def usual_ratio(paths: Sequence[str]) -> float | None:
    """Median of height over width of images.

    Args:
        paths (Sequence[str]): Image files, of which some are looked at, and only at their headers.

    Returns:
        float | None: The ratio; ``None`` where none can be read.
    """
    ratios = []
    for path in paths[:: max(1, -(-len(paths) // SAMPLE))]:
        # what cannot be read is named where it is read
        with contextlib.suppress(OSError), Image.open(path) as image:
            ratios.append(image.height / image.width)
    return statistics.median(ratios) if ratios else None


def warn_if_squeezed(paths: Sequence[str], image_size: tuple[int, int]) -> None:
    """Tell once of a size that keeps the shape of the images, where this one squeezes them.

    Args:
        paths (Sequence[str]): Image files; a few of them are looked at.
        image_size (tuple[int, int]): Height and width in pixels that they are resized to.
    """
    ratio = usual_ratio(paths)
    if ratio is None:
        return
    ours = image_size[0] / image_size[1]
    better = size_of_shape(ratio, image_size[0] * image_size[1])
    if max(ratio / ours, ours / ratio) > SQUEEZED and better != tuple(image_size):
        sides = f"{ratio:.1f} times as high as wide" if ratio > 1 else f"{1 / ratio:.1f} times as wide as high"
        logger.warning(
            f"The images are {sides} and get squeezed to {image_size[0]} x {image_size[1]} pixels; "
            f"image_size=[{better[0]},{better[1]}] keeps their shape in as many.",
        )
