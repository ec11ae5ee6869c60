# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Input, map and outline side by side, as HTML with the pictures inside it."""

import base64
import io
from collections.abc import Iterator
from pathlib import PurePath

import cv2
import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.colors import Normalize, to_rgb
from PIL import Image

from anomalib_vmpfd.plotting.heatmap_figure import CONTOUR, calibrated_scale
from anomalib_vmpfd.plotting.style import COLORMAP

from .judge import View

SIDE = 512  # longer side of a picture in pixels
MARGIN = 0.5  # of a region's longer side is shown around it

Box = tuple[int, int, int, int]

FIGURES = Markup('<div class="pictures">{}</div>')
FIGURE = Markup('<figure><img src="{}" alt="{}"><figcaption>{}{}</figcaption></figure>')
SCALE = Markup(
    '<div class="scale" role="img" aria-label="{label}"><img src="{bar}" alt="">'
    '<span style="left: {at:.1f}%" class="mark"></span><span style="left: {at:.1f}%" class="named">threshold</span>'
    '<div class="ends"><span>normal</span><span>anomalous</span></div></div>'
)


def figures(view: View, title: str, name: str, box: Box | None = None) -> Markup:
    """Draw an image three times: as it is, as a map, and with the outline of its mask.

    Args:
        view (View): The image and its panel.
        title (str): Title of the panel.
        name (str): What the image is called.
        box (Box | None): Left, top, right and bottom edge of a region to zoom to, in pixels of the image. Defaults to
            ``None``: the whole image.

    Returns:
        Markup: HTML whose pictures need no further file.
    """
    shown = view.panel
    short = PurePath(name).name
    picture = cropped(view.image, view.image.shape[:2], box)
    map_or_picture = cropped(shown.values, view.image.shape[:2], box)
    legend = Markup()
    if shown.values.ndim == 2 and shown.threshold is not None:
        scale = calibrated_scale() if shown.calibrated else Normalize(0, 1, clip=True)
        map_or_picture = mpl.colormaps[COLORMAP](scale(map_or_picture))[..., :3]
        legend = _legend(float(scale(shown.threshold)))
    outline = outlined(picture, cropped(view.mask.astype(np.float32), view.image.shape[:2], box) >= 0.5)
    return FIGURES.format(
        FIGURE.format(_uri(picture), f"{short} as it is", "Input", "")
        + FIGURE.format(_uri(map_or_picture), f"{title} of {short}", title, legend)
        + FIGURE.format(_uri(outline), f"{short} with the outline of what was found", "Outline", "")
    )


def cropped(values: np.ndarray, size: tuple[int, int], box: Box | None) -> np.ndarray:
    """A part of an image, map or mask, resized so that its longer side has ``SIDE`` pixels.

    Args:
        values (np.ndarray): ``(h, w)`` or ``(h, w, 3)``.
        size (tuple[int, int]): Height and width of the image that the box belongs to.
        box (Box | None): The part to zoom to; ``None`` is everything.

    Returns:
        np.ndarray: Float32; values of different sizes but one image are cut to the same part and size.
    """
    left, top, right, bottom = box or (0, 0, size[1], size[0])
    if box is not None:
        around = max(4, round(MARGIN * max(right - left, bottom - top)))
        left, top = max(0, left - around), max(0, top - around)
        right, bottom = min(size[1], right + around), min(size[0], bottom + around)
    width, height = right - left, bottom - top
    longer = max(width, height)
    target = max(1, round(SIDE * width / longer)), max(1, round(SIDE * height / longer))
    y, x = values.shape[0] / size[0], values.shape[1] / size[1]
    channels = np.moveaxis(np.atleast_3d(values), 2, 0)
    smaller = width * x > target[0]
    resized = [
        Image.fromarray(channel.astype(np.float32)).resize(
            target,
            Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR,
            box=(left * x, top * y, right * x, bottom * y),
        )
        for channel in channels
    ]
    return np.stack([np.asarray(each) for each in resized], axis=-1).squeeze(-1 if len(channels) == 1 else ())


def outlined(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw the outline of a mask ``(h, w)`` on a picture ``(h, w, 3)`` in [0, 1], with a halo to be visible on any."""
    drawn = np.array(picture, dtype=np.float32, order="C")
    edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for color, width in zip(CONTOUR, (5, 2), strict=True):
        cv2.drawContours(drawn, edges, -1, to_rgb(color), width, cv2.LINE_AA)
    return drawn


def _legend(threshold: float) -> Markup:
    bar = mpl.colormaps[COLORMAP](np.linspace(0, 1, 128))[None, :, :3]
    label = "Colours from normal, dark, to anomalous, bright; the pixel threshold is marked"
    return SCALE.format(label=label, bar=_uri(bar, "PNG"), at=100 * threshold)


def _uri(picture: np.ndarray, kind: str = "JPEG") -> str:
    content = io.BytesIO()
    Image.fromarray((255 * np.clip(picture, 0, 1)).round().astype(np.uint8)).save(content, kind, quality=88)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"


def region_boxes(regions: list[dict]) -> Iterator[tuple[str, Box]]:
    """Name the regions of a row, and their boxes."""
    for number, region in enumerate(regions, 1):
        column, line = region["peak"]
        yield f"Region {number}: peak {region['peak_score']:.2f} at {column}, {line}", tuple(region["box"])
