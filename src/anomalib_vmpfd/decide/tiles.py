# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Large images in tiles: one map and one score, in memory that does not grow with the image but for its map.

anomalib's ``Tiler`` holds all tiles of a batch at once, pads the last ones with black or rescales the image, and
averages overlaps without a weight, which leaves seams; hence these few lines.
"""

from collections.abc import Callable, Iterator

import numpy as np

from .runtimes import Answer

Predict = Callable[[np.ndarray], Answer]


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of the tiles along one axis, which share ``overlap`` pixels at least; the last is flush.

    Args:
        length (int): Pixels of the image, at least ``tile``.
        tile (int): Pixels of a tile.
        overlap (int): Pixels that neighbouring tiles share.

    Returns:
        list[int]: Evenly spaced, from 0 to ``length - tile``.

    Raises:
        ValueError: If tiles would overlap by a negative number or as a whole.

    Example:
        >>> starts(1000, 256, 32)
        [0, 186, 372, 558, 744]
    """
    if not 0 <= overlap < tile:
        msg = f"overlap={overlap} must be from 0 to less than the {tile} pixels of a tile."
        raise ValueError(msg)
    last = length - tile
    count = -(-last // (tile - overlap)) + 1
    return [round(index * last / max(1, count - 1)) for index in range(count)]


def cut(image: np.ndarray, tile: tuple[int, int], overlap: int) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Tiles of an image.

    Args:
        image (np.ndarray): ``(H, W, 3)``. Where it is smaller than a tile it is mirrored at its lower and right border.
        tile (tuple[int, int]): Height and width of a tile in pixels.
        overlap (int): Pixels that neighbouring tiles share.

    Yields:
        tuple[tuple[int, int], np.ndarray]: First row and column, and the pixels of each tile.
    """
    missing = [max(0, wanted - given) for wanted, given in zip(tile, image.shape, strict=False)]
    if any(missing):
        image = np.pad(image, [*((0, each) for each in missing), (0, 0)], mode="symmetric")
    for top in starts(image.shape[0], tile[0], overlap):
        for left in starts(image.shape[1], tile[1], overlap):
            yield (top, left), image[top : top + tile[0], left : left + tile[1]]


def predict_in_tiles(predict: Predict, image: np.ndarray, tile: tuple[int, int], overlap: int) -> Answer:
    """Judge a large image by its tiles, one after the other.

    Args:
        predict (Predict): Answers to a tile in [0, 1], float32, ``(3, h, w)``, with a map of as many pixels: a model
            of that image size, or an export of it.
        image (np.ndarray): RGB, 8 or 16 bits, ``(H, W, 3)``.
        tile (tuple[int, int]): Height and width of a tile in pixels.
        overlap (int): Pixels that neighbouring tiles share. In them the map goes over from one tile to the next.

    Returns:
        Answer: The largest score of a tile, whether any tile is anomalous, and the map ``(H, W)``.

    Raises:
        ValueError: If a map has another size than its tile.
    """
    height, width = image.shape[:2]
    total = np.zeros((max(height, tile[0]), max(width, tile[1])), np.float32)
    scores, labels = [], []
    rows, columns = (_weights(size, side, overlap) for size, side in zip(total.shape, tile, strict=True))
    for (top, left), pixels in cut(image, tile, overlap):
        seen = predict(np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) / np.iinfo(image.dtype).max)
        if seen.anomaly_map.shape != tuple(tile):
            msg = f"Tiles have {tile[0]} x {tile[1]} pixels, their map {' x '.join(map(str, seen.anomaly_map.shape))}."
            raise ValueError(msg)
        weight = rows[top][:, None] * columns[left]
        total[top : top + tile[0], left : left + tile[1]] += seen.anomaly_map * weight
        scores.append(seen.score)
        labels.append(seen.label)
    # a score that is not a number must not be passed over
    return Answer(float(np.max(scores)), any(labels), total[:height, :width])


def _weights(length: int, tile: int, overlap: int) -> dict[int, np.ndarray]:
    """Weights of the pixels of each tile along one axis; those of all tiles add up to one at every pixel."""
    border = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 0.5
    # from nothing and without a bend: what a tile says at its border is the least of what it knows
    shape = np.sin(0.5 * np.pi * np.minimum(1.0, border / max(0.5, overlap))) ** 2
    total = np.zeros(length)
    firsts = starts(length, tile, overlap)
    for first in firsts:
        total[first : first + tile] += shape
    return {first: (shape / total[first : first + tile]).astype(np.float32) for first in firsts}
