# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Generated sample parts: turned steel washers with planted defects, in the layout of MVTec AD.

They serve the quickstart, the notebooks and the tests: free of anybody's licence, written in seconds, the same on every
machine, and with masks that are exact by construction: outside of its mask, a defective image equals the picture of the
same part without the defect. The parts turn and shift under a light that varies, and their brushed texture is new in
every image, so that a mean image or a threshold on brightness does not find the defects.

Example:
    >>> from anomalib_vmpfd.data.sample import make_sample
    >>> make_sample("datasets/sample")  # doctest: +SKIP
    PosixPath('datasets/sample/washer')
"""

import json
import logging
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

logger = logging.getLogger(__name__)

CATEGORY = "washer"
SIZE = 256  # side of an image in pixels; the geometry below is in pixels of an image twice as large
COUNTS = {"train/good": 60, "test/good": 12, "test/scratch": 8, "test/dent": 8, "test/broken_edge": 8}

_SIDE = 2 * SIZE
_OUTER, _INNER = 196.0, 78.0  # radii of the washer
_HOLES, _HOLE_RING, _HOLE_RADIUS = 6, 138.0, 19.0
_BEVEL = 9.0  # width of the bevelled edges
_RECIPE = {"generator": "anomalib_vmpfd.data.sample", "version": 1, "counts": COUNTS, "size": SIZE}


def make_sample(root: str | Path, *, seed: int = 0) -> Path:
    """Write the sample parts to ``root/washer``: 60 normal training, 12 normal and 24 defective test images.

    The folder appears all at once when it is complete, and a complete folder is left as it is.

    Args:
        root (str | Path): Folder in which ``washer`` is created; the ``root`` of the datamodule.
        seed (int, optional): Seed of the generator. Defaults to ``0``.

    Returns:
        Path: The folder ``root/washer`` with ``train``, ``test`` and ``ground_truth``.

    Raises:
        FileExistsError: If ``root/washer`` holds anything but the sample parts of this seed.
    """
    folder = Path(root) / CATEGORY
    recipe = {**_RECIPE, "seed": seed}
    if not _complete(folder, recipe):
        logger.info(f"Writing {sum(COUNTS.values())} sample parts to {folder}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{CATEGORY}-", dir=folder.parent) as temporary:
            part = Path(temporary) / CATEGORY
            for split, (name, count) in enumerate(COUNTS.items()):
                kind = name.removeprefix("test/")
                for index in range(count):
                    image, mask = render(seed=(seed, split, index), defect=kind if kind in _DEFECTS else None)
                    _write(part / name / f"{index:03d}.png", image)
                    if kind in _DEFECTS:
                        _write(part / "ground_truth" / kind / f"{index:03d}_mask.png", mask)
            (part / "sample.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
            try:
                part.rename(folder)
            except OSError:
                if not _complete(folder, recipe):  # else another process was faster
                    raise
    return folder


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, compress_level=3)


def _complete(folder: Path, recipe: dict) -> bool:
    if not folder.exists():
        return False
    card = folder / "sample.json"
    if not card.is_file() or json.loads(card.read_text(encoding="utf-8")) != recipe:
        msg = (
            f"{folder} holds other data than the sample parts of seed {recipe['seed']}; delete it or name another root."
        )
        raise FileExistsError(msg)
    return True


def render(seed: int | tuple[int, ...], defect: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Render one part.

    Args:
        seed (int | tuple[int, ...]): Seed of this part. With the same seed, a part with a defect differs from the one
            without only inside the mask.
        defect (str | None, optional): ``"scratch"``, ``"dent"``, ``"broken_edge"`` or none. Defaults to ``None``.

    Returns:
        tuple[np.ndarray, np.ndarray]: RGB image (256, 256, 3) and mask (256, 256) of 0 and 255, both uint8.
    """
    rng = np.random.default_rng(seed)
    centre = _SIDE / 2 + rng.uniform(-8, 8, 2)
    turn = rng.uniform(0, 2 * math.pi)
    light = math.radians(-55 + rng.uniform(-12, 12))  # where the lamp stands, seen from the centre

    y, x = np.mgrid[:_SIDE, :_SIDE].astype(np.float32)
    dx, dy = x - float(centre[0]), y - float(centre[1])
    radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    # Signed distance to the metal's edge, positive on the metal; all holes are the one of a sector.
    sector = 2 * math.pi / _HOLES
    aside = (angle - turn) % sector - sector / 2
    # rounding may make the square of a distance of 0 negative
    squared = radius**2 + _HOLE_RING**2 - 2 * _HOLE_RING * radius * np.cos(aside)
    hole = np.sqrt(squared.clip(0)) - _HOLE_RADIUS
    edge = np.minimum(np.minimum(_OUTER - radius, radius - _INNER), hole)
    metal = edge > 0

    ground = _ground(rng, edge, light)
    steel = _steel(rng, radius, angle, edge, light)
    noise = rng.normal(0, 1.6, (SIZE, SIZE, 1)) + rng.normal(0, 0.7, (SIZE, SIZE, 3))
    gain = rng.uniform(0.93, 1.07) * (np.array([0.985, 1.0, 1.015]) + rng.uniform(-0.02, 0.02, 3))  # cool light

    changed = np.zeros_like(metal)
    if defect is not None:
        steel, metal, changed = _DEFECTS[defect](
            np.random.default_rng([*np.atleast_1d(seed), 1]), steel, metal, centre, light
        )
    cover = np.clip(edge + 0.5, 0, 1) * metal  # antialiased edge
    picture = ground + (steel.astype(np.float32) - ground) * cover  # one precision, so that equal parts stay equal
    picture = cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    picture = 255 * picture[..., None] * gain + noise
    mask = changed.reshape(SIZE, 2, SIZE, 2).any(axis=(1, 3))
    return np.clip(picture.round(), 0, 255).astype(np.uint8), mask.astype(np.uint8) * 255


def _field(rng: np.random.Generator, shape: tuple[int, int], sigma: tuple[float, float]) -> np.ndarray:
    """Noise of unit variance, smooth over ``sigma`` pixels in y and x; seamless."""
    wave_y, wave_x = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    gaussian = np.exp(-2 * math.pi**2 * ((sigma[0] * wave_y) ** 2 + (sigma[1] * wave_x) ** 2))
    noise = rng.standard_normal(shape, dtype=np.float32)
    smooth = np.fft.irfft2(np.fft.rfft2(noise) * gaussian.astype(np.float32), shape).astype(np.float32)
    return (smooth - smooth.mean()) / smooth.std()


def _ground(rng: np.random.Generator, edge: np.ndarray, light: float) -> np.ndarray:
    """Dark rubber mat with grain, uneven light and the part's shadow."""
    ground = 0.21 + 0.012 * _field(rng, edge.shape, (1.2, 1.2)) + 0.012 * _field(rng, edge.shape, (60, 60))
    away = np.array([[1, 0, -9 * math.cos(light)], [0, 1, -9 * math.sin(light)]])
    shadow = cv2.warpAffine((edge > 0).astype(np.float32), away, edge.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    return ground * (1 - 0.6 * cv2.GaussianBlur(shadow, (0, 0), 7))


def _steel(
    rng: np.random.Generator,
    radius: np.ndarray,
    angle: np.ndarray,
    edge: np.ndarray,
    light: float,
) -> np.ndarray:
    """Turned steel: fine rings, the double cone of light they reflect, bevelled edges."""
    rings = _field(rng, (200, 800), (0.6, 32)) + 0.5 * _field(rng, (200, 800), (1.5, 95))
    column = angle / (2 * math.pi) % 1 * 800
    brushed = cv2.remap(rings.astype(np.float32), column, radius, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    sheen = np.cos(angle - light) ** 2
    steel = 0.47 + 0.26 * sheen**3 + (0.022 + 0.02 * sheen) * brushed
    slope_y, slope_x = np.gradient(edge)
    lit = -(slope_x * math.cos(light) + slope_y * math.sin(light))  # edges that face the lamp are bright
    return steel + 0.30 * lit * np.clip(1 - edge / _BEVEL, 0, 1)


def _spot(
    rng: np.random.Generator,
    metal: np.ndarray,
    centre: np.ndarray,
    reach: tuple[float, float],
) -> tuple[np.ndarray, float]:
    """Random place on the metal: its position (x, y) and its angle around the centre."""
    while True:
        angle = rng.uniform(0, 2 * math.pi)
        place = centre + rng.uniform(*reach) * np.array([math.cos(angle), math.sin(angle)])
        if metal[int(place[1]), int(place[0])]:
            return place, angle


def _outline(rng: np.random.Generator, place: np.ndarray, size: float) -> np.ndarray:
    """Distance to ``place`` in units of an irregular outline of about ``size`` pixels: below 1 is inside."""
    y, x = np.mgrid[:_SIDE, :_SIDE]
    dx, dy = x - place[0], y - place[1]
    around = np.arctan2(dy, dx)
    wobble = sum(rng.uniform(0, 0.28 / k) * np.cos(k * around + rng.uniform(0, 2 * math.pi)) for k in (2, 3, 5))
    return np.hypot(dx, dy) / (size * (1 + wobble))


Planted = tuple[np.ndarray, np.ndarray, np.ndarray]  # steel, metal and what was changed


def _scratch(
    rng: np.random.Generator,
    steel: np.ndarray,
    metal: np.ndarray,
    centre: np.ndarray,
    light: float,
) -> Planted:
    """A groove across the rings: dark, with a burr that catches the light."""
    start, angle = _spot(rng, metal, centre, (_INNER + 25, _OUTER - 45))
    heading = angle + rng.choice([-1, 1]) * rng.uniform(0.25, 1.1)
    step = np.linspace(0, 1, 24)[:, None]
    along, across = (np.array([math.cos(a), math.sin(a)]) for a in (heading, heading + math.pi / 2))
    curve = start + rng.uniform(70, 130) * (step - 0.5) * along + rng.uniform(-25, 25) * step**2 * across
    burr = curve + 2.2 * np.array([math.cos(light), math.sin(light)])

    def draw(line: np.ndarray, width: int) -> np.ndarray:
        canvas = np.zeros(steel.shape, np.uint8)
        return (
            cv2.polylines(
                canvas,
                [np.round(16 * line).astype(np.int32)],
                isClosed=False,
                color=255,
                thickness=width,
                lineType=cv2.LINE_AA,
                shift=4,
            )
            / 255
        )

    width = int(rng.integers(3, 6))
    groove, ridge = draw(curve, width) * metal, draw(burr, max(width - 2, 1)) * metal
    scratched = steel + (0.92 - steel) * 0.75 * ridge
    return scratched + (0.20 - scratched) * 0.8 * groove, metal, (groove > 0) | (ridge > 0)


def _dent(
    rng: np.random.Generator,
    steel: np.ndarray,
    metal: np.ndarray,
    centre: np.ndarray,
    light: float,
) -> Planted:
    """A hollow with a sharp rim, its far wall bright and its near wall dark, the rings in it crushed."""
    place, _ = _spot(rng, metal, centre, (_INNER + 25, _OUTER - 25))
    distance = _outline(rng, place, rng.uniform(15, 26))
    inside = (distance < 1) & metal
    slope_y, slope_x = np.gradient(distance**2)
    wall = -(slope_x * math.cos(light) + slope_y * math.sin(light)) / max(np.abs(slope_x[inside]).max(), 1e-6)
    crushed = 0.45 * cv2.GaussianBlur(steel, (0, 0), 6) + 0.16 + 0.02 * _field(rng, steel.shape, (2, 2))
    return np.where(inside, crushed + 0.36 * wall, steel), metal, inside


def _broken_edge(
    rng: np.random.Generator,
    steel: np.ndarray,
    metal: np.ndarray,
    centre: np.ndarray,
    light: float,
) -> Planted:
    """A piece broken off the outer edge; a dull, rough face of fracture is left."""
    del light  # the face of fracture is dull
    place, _ = _spot(rng, metal, centre, (_OUTER - 8, _OUTER - 2))
    distance = _outline(rng, place, rng.uniform(20, 34))
    broken = (distance < 1) & metal
    face = 0.30 + 0.06 * _field(rng, steel.shape, (1.5, 1.5))
    return np.where(broken, face, steel), metal & ~(distance < 0.78), broken


_DEFECTS: dict[str, Callable[..., Planted]] = {"scratch": _scratch, "dent": _dent, "broken_edge": _broken_edge}
