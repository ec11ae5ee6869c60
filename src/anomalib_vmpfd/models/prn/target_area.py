# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Where an anomaly may lie: target areas TA on the part (section 3.4)."""

import math

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes
from skimage.draw import polygon
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from .draws import choice, uniform

FRAME = 0.02  # of the sides, what is looked at to tell the background
BACKGROUND = 0.9  # of the frame at least that shows the background
FARTHER = 2.0  # times the distance of that share of the frame from its usual colour is no background
LEAST = 0.02  # distance that is none, whatever the frame is like: five grey levels
SMALLEST = 0.05  # of the picture that a part covers
RADIUS = (0.1, 0.5)  # of the shorter side


def foreground(image: Tensor) -> Tensor:
    """Tell the part from a background of one colour.

    The background is what is hardly farther from the usual colour of the frame of the picture than the frame itself.
    Where that leaves no part, as with textures, the part is the whole picture.

    Args:
        image (Tensor): Image in [0, 1] of shape ``(3, H, W)``.

    Returns:
        Tensor: Bool, ``(H, W)``.
    """
    height, width = image.shape[-2:]
    whole = torch.ones(height, width, dtype=torch.bool)
    rim = max(1, round(FRAME * min(height, width)))
    frame = whole.clone()
    frame[rim:-rim, rim:-rim] = False
    background = image[:, frame].median(1).values
    distance = gaussian_blur((image - background[:, None, None]).abs().mean(0, keepdim=True), [5, 5])[0]
    limit = max(LEAST, FARTHER * float(distance[frame].quantile(BACKGROUND)))
    part = torch.from_numpy(binary_fill_holes((distance > limit).numpy()))
    return part if part.float().mean() >= SMALLEST else whole


def target_area(part: Tensor) -> Tensor:
    """Draw a circle, a rectangle or a polygon around a place on the part.

    Args:
        part (Tensor): Bool, ``(H, W)``, with any pixel.

    Returns:
        Tensor: What of the shape lies on the part, bool, ``(H, W)``; it has at least one pixel.
    """
    place = part.nonzero()
    centre = place[choice(len(place))].numpy()
    radius = uniform(*RADIUS) * min(part.shape)
    corners = centre + radius * _SHAPES[choice(len(_SHAPES))]()
    shape = torch.zeros_like(part)
    rows, columns = polygon(corners[:, 0], corners[:, 1], tuple(part.shape))
    shape[torch.from_numpy(rows), torch.from_numpy(columns)] = True
    shape[tuple(centre)] = True
    return shape & part


def _circle() -> np.ndarray:
    angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    return np.stack([np.sin(angles), np.cos(angles)], 1)


def _rectangle() -> np.ndarray:
    sides = np.array([uniform(0.3, 1), uniform(0.3, 1)])
    return sides * np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]])


def _polygon() -> np.ndarray:
    corners = 3 + choice(6)
    angles = 2 * math.pi * torch.rand(corners).sort().values.numpy()
    return (0.5 + 0.5 * torch.rand(corners, 1).numpy()) * np.stack([np.sin(angles), np.cos(angles)], 1)


_SHAPES = (_circle, _rectangle, _polygon)
