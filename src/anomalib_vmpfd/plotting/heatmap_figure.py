# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Layout of one figure: panels with images, masks and maps, a title, and a colour bar with a fixed scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import FuncNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from PIL import Image

from .style import COLORMAP

DPI = 100
MARGIN, LABEL, BAR = 12, 20, 108  # pixels around panels: all sides, above a panel, colour bar
HEADER = {0: 8, 1: 32, 2: 52}  # above the panels, by lines of text
LINE = 13  # height of a small line of text
MIN_WIDTH = 560  # of a picture, so that its title has room
INK, PAPER = "#1c2024", "#ffffff"
CONTOUR = ("#ffffff", "#0072b2")  # halo and line, so that the contour is visible on any image

Kind = Literal["image", "mask", "map"]
Box = tuple[float, float, float, float]  # left, top, width, height in pixels


@dataclass(frozen=True)
class Panel:
    """One panel of a figure.

    Attributes:
        title (str): Title above the panel.
        values (np.ndarray): ``(H, W, 3)`` in [0, 1] for an image, ``(H, W)`` for a mask or a map.
        kind (str): ``"image"``, ``"mask"`` or ``"map"``.
        contour (np.ndarray | None): Mask ``(H, W)`` whose contour is drawn on the image.
    """

    title: str
    values: np.ndarray
    kind: Kind = "image"
    contour: np.ndarray | None = None


def calibrated_scale() -> Normalize:
    """Scale of calibrated maps: 0 and 1 are the quantiles ``q_start`` and ``q_end`` of the normal images.

    ``s / (1 + s)`` for ``s`` from 0 to 20: ``q_end`` is at the middle of the colour map, normal regions stay dark, and
    high scores remain distinguishable.
    """

    def forward(s: np.ndarray) -> np.ndarray:
        s = np.clip(s, 0, None)
        return s / (1 + s)

    return FuncNorm((forward, lambda c: np.asarray(c) / (1 - np.asarray(c))), vmin=0, vmax=20, clip=True)


def heatmap_figure(
    panels: Sequence[Panel],
    title: str = "",
    subtitle: str = "",
    *,
    scale: Normalize | None = None,
    threshold: float | None = None,
    panel_size: int = 256,
    columns: int | None = None,
) -> Figure:
    """Arrange panels in a figure with a title and a colour bar.

    Args:
        panels (Sequence[Panel]): Panels, all of one aspect ratio.
        title (str): First line, shortened in the middle if it is too long.
        subtitle (str): Second line.
        scale (Normalize | None): Scale of the maps. Defaults to ``None``: :func:`calibrated_scale`.
        threshold (float | None): Pixel threshold on the scale of the maps, marked at the colour bar.
        panel_size (int): Longer side of a panel in pixels.
        columns (int | None): Panels in a row. Defaults to ``None``: one row, or of more than four the maps in a second.

    Returns:
        Figure: The figure, independent of pyplot.

    Raises:
        ValueError: If there are no panels.
    """
    if not panels:
        msg = "A picture needs at least one panel; give an image or a map."
        raise ValueError(msg)
    first_map = next((index for index, panel in enumerate(panels) if panel.kind == "map"), None)
    if columns is None and len(panels) > 4 and first_map:
        in_rows = [first_map, len(panels) - first_map]
    else:
        columns = columns or len(panels)
        in_rows = [min(columns, len(panels) - start) for start in range(0, len(panels), columns)]
    places = [(row, column) for row, count in enumerate(in_rows) for column in range(count)]
    rows, columns = len(in_rows), max(in_rows)
    height, width = panels[0].values.shape[:2]
    w, h = (max(1, round(panel_size * side / max(height, width))) for side in (width, height))
    bar = 0 if first_map is None else BAR
    content = columns * w + (columns + 1) * MARGIN + bar
    total_w = max(content, MIN_WIDTH)
    header = HEADER[bool(title) + bool(subtitle)]
    total_h = header + rows * (h + LABEL + MARGIN)
    left = (total_w - content) // 2

    figure = Figure(figsize=(total_w / DPI, total_h / DPI), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    # one axes in pixels: an axes for every panel would take most of the time
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, total_w), ylim=(total_h, 0), autoscale_on=False)
    axes.set_axis_off()
    for text, y, size, weight in ((title, 8, 11, "bold"), (subtitle, 28 if title else 8, 10, "normal")):
        _write(axes, MARGIN, y, text, room=total_w - 2 * MARGIN, va="top", size=size, weight=weight)
    scale = scale or calibrated_scale()
    for panel, (row, column) in zip(panels, places, strict=True):
        x, y = left + MARGIN + column * (w + MARGIN), header + LABEL + row * (h + LABEL + MARGIN)
        _draw(axes, panel, (x, y, w, h), scale)
    if first_map is not None:
        row, _ = places[first_map]
        corner = (left + MARGIN + in_rows[row] * (w + MARGIN), header + LABEL + row * (h + LABEL + MARGIN))
        _color_bar(axes, (*corner, 14, h), scale, threshold)
    return figure


def to_picture(figure: Figure) -> Image.Image:
    """Render a figure as an RGB image, as :class:`ImageVisualizer` returns it."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _draw(axes: Axes, panel: Panel, box: Box, scale: Normalize) -> None:
    x, y, w, h = box
    _write(axes, x, y - 4, panel.title, room=w, va="bottom", size=9)
    style: dict[str, Any] = {"extent": (x, x + w, y + h, y), "aspect": "auto"}
    if panel.kind == "map":
        axes.imshow(panel.values, cmap=COLORMAP, norm=scale, interpolation="bilinear", **style)
    elif panel.kind == "mask":
        axes.imshow(panel.values, cmap="gray", vmin=0, vmax=1, interpolation="nearest", **style)
    else:
        axes.imshow(np.clip(panel.values, 0, 1), interpolation="bilinear", **style)
    frame = axes.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=INK, alpha=0.4, linewidth=0.8))
    if panel.contour is not None and panel.contour.any():
        # padding with background closes contours at the border
        mask = np.pad(panel.contour.astype(float), 1)
        cells = [(np.arange(n) - 0.5) / (n - 2) for n in mask.shape]
        for color, line in zip(CONTOUR, (3.2, 1.5), strict=True):
            outline = axes.contour(x + w * cells[1], y + h * cells[0], mask, [0.5], colors=color, linewidths=line)
            outline.set_clip_path(frame)


def _color_bar(axes: Axes, box: Box, scale: Normalize, threshold: float | None) -> None:
    x, y, w, h = box
    gradient = np.linspace(1, 0, 256)[:, None]
    axes.imshow(gradient, cmap=COLORMAP, vmin=0, vmax=1, extent=(x, x + w, y + h, y), aspect="auto")
    axes.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=INK, alpha=0.4, linewidth=0.8))
    if isinstance(scale, FuncNorm):
        ticks = {0.0: "0  $q_\\mathrm{start}$", 1.0: "1  $q_\\mathrm{end}$", 3.0: "3", 20.0: "≥ 20"}
    else:
        ticks = {
            float(tick): f"{tick:.3g}" for tick in np.linspace(float(scale.vmin or 0.0), float(scale.vmax or 1.0), 3)
        }
    places = {tick: y + h * (1 - float(scale(tick))) for tick in ticks}
    for tick, place in places.items():
        axes.plot((x + w, x + w + 4), (place, place), color=INK, linewidth=0.8)
        axes.text(x + w + 7, place, ticks[tick], color=INK, size=8, va="center_baseline")
    if threshold is not None and np.isfinite(threshold):
        at = y + h * (1 - float(scale(np.clip(threshold, scale.vmin, scale.vmax))))
        for color, line in zip(CONTOUR, (2.6, 1.4), strict=True):
            axes.plot((x, x + w), (at, at), color=color, linewidth=line, solid_capstyle="butt")
        # clear of the nearest tick label, and within the length of the bar
        nearest = min(places.values(), key=lambda place: abs(place - at))
        if abs(nearest - at) < LINE:
            above = at < nearest if y + LINE < nearest < y + h - LINE else nearest > y + h / 2
            at = nearest - LINE if above else nearest + LINE
        axes.text(x + w + 7, at, "threshold", color=CONTOUR[1], size=8, va="center_baseline")


def _write(axes: Axes, x: float, y: float, text: str, room: float, **style: Any) -> None:  # noqa: ANN401
    """Draw a text, shortened in the middle until it is at most ``room`` pixels wide."""
    text = readable(text)
    drawn = axes.text(x, y, text, color=INK, parse_math=False, **style)
    keep = len(text)
    while keep > 4 and (width := drawn.get_window_extent().width) > room:
        keep = min(keep - 1, int(keep * room / width))
        drawn.set_text(f"{text[: keep - keep // 2]}…{text[len(text) - keep // 2 :]}")


def readable(text: str) -> str:
    """Replace characters without a glyph in the font by escapes, which unlike empty boxes remain distinguishable."""
    known = _known_letters(mpl.rcParams["font.family"][0])
    return "".join(c if ord(c) in known else c.encode("unicode_escape").decode() for c in text)


@cache
def _known_letters(family: str) -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=[family]))).get_charmap())
