# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Gallery to compare models visually: image, ground truth and every model's heatmap, worst errors first."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

from anomalib_vmpfd.benchmark.results import Results
from anomalib_vmpfd.plotting.style import COLORMAP

from .summary import Summary

THUMB = 176
PER_CATEGORY = 24


@dataclass
class Tile:
    """The result of a model for an image.

    Attributes:
        model (str): Label.
        source (str): Heatmap as a data URI.
        verdict (str): ``found``, ``missed``, ``false alarm`` or ``passed``.
        score (float): Raw image score.
        severity (float): Distance of the score from the threshold, relative to the range of the scores; positive for
            wrong decisions, negative for correct ones.
    """

    model: str
    source: str
    verdict: str
    score: float
    severity: float


@dataclass
class Picture:
    """An image of the gallery.

    Attributes:
        dataset (str): Data set.
        category (str): Category.
        kind (str): Defect kind, the name of the image's folder.
        name (str): File name.
        anomalous (bool): Ground truth.
        image (str): Image as a data URI.
        mask (str | None): Ground truth mask as a data URI.
        tiles (list[Tile]): One per model.
    """

    dataset: str
    category: str
    kind: str
    name: str
    anomalous: bool
    image: str
    mask: str | None
    tiles: list[Tile]

    @property
    def severity(self) -> float:
        """float: The worst error of any model."""
        return max(tile.severity for tile in self.tiles)


def collect(summary: Summary, results: Results, licensed: bool) -> list[Picture]:
    """Make the pictures of a suite.

    Args:
        summary (Summary): Results.
        results (Results): Folder with scores and heatmaps.
        licensed (bool): Also show data sets whose licence does not permit published pictures.

    Returns:
        list[Picture]: At most 24 per category, worst errors first. Categories whose heatmaps or images are not
            available are omitted.
    """
    free = {dataset.name for dataset in summary.suite.datasets if dataset.gallery}
    pictures = []
    for dataset, category in summary.categories:
        if licensed or dataset in free:
            pictures += _category(summary, results, dataset, category)
    return sorted(pictures, key=lambda picture: -picture.severity)


def _category(summary: Summary, results: Results, dataset: str, category: str) -> list[Picture]:
    runs = {}
    for model, key in summary.first_runs(dataset, category).items():
        scores, maps = results.predictions(key), results.maps(key)
        if scores is not None and maps is not None:
            order = np.argsort(maps["files"])
            runs[model] = {name: maps[name][order] for name in ("maps", "files", "masks")}
            runs[model] |= {name: np.array(scores[name])[order] for name in ("scores", "labels", "decisions")}
            runs[model]["severity"] = _severity(runs[model], scores["threshold"])
    if not runs:
        return []
    first = next(iter(runs.values()))
    files, masks = first["files"], first["masks"]
    runs = {model: run for model, run in runs.items() if np.array_equal(run["files"], files)}
    shown = [index for index in _select(runs) if Path(files[index]).is_file()]
    return [
        _picture((dataset, category), files[index], masks[index], {m: _answer(run, index) for m, run in runs.items()})
        for index in shown
    ]


def _severity(run: dict[str, np.ndarray], threshold: float | None) -> np.ndarray:
    """Measure errors relative to the range of the model's scores, so that models are comparable."""
    middle = np.median(run["scores"]) if threshold is None else threshold
    distance = np.abs(run["scores"] - middle) / max(np.ptp(run["scores"]), 1e-12)
    return np.where(run["decisions"] != run["labels"], distance, -distance)


def _select(runs: dict[str, dict[str, np.ndarray]]) -> list[int]:
    """Select the worst false alarms and misses of each model in turn, up to the limit of a category."""
    ranked = [
        [index for index in np.argsort(-run["severity"]) if run["labels"][index] == anomalous]
        for run in runs.values()
        for anomalous in (0, 1)
    ]
    longest = max(map(len, ranked))
    turns = [queue[turn] for turn in range(longest) for queue in ranked if turn < len(queue)]
    return [int(index) for index in list(dict.fromkeys(turns))[:PER_CATEGORY]]


def _answer(run: dict[str, np.ndarray], index: int) -> dict:
    return {name: run[name][index] for name in ("maps", "scores", "labels", "decisions", "severity")}


def _picture(key: tuple[str, str], file: str, mask: str, answers: dict[str, dict]) -> Picture:
    path = Path(file)
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    image.thumbnail((THUMB, THUMB))
    truth = None
    if mask and Path(mask).is_file():
        with Image.open(mask) as opened:
            truth = (
                opened.convert("L").point(lambda level: 255 if level else 0).resize(image.size, Image.Resampling.BOX)
            )
    return Picture(
        dataset=key[0],
        category=key[1],
        kind=path.parent.name,
        name=path.name,
        anomalous=bool(next(iter(answers.values()))["labels"]),
        image=_data_uri(image),
        mask=None if truth is None else _data_uri(truth),
        tiles=[
            Tile(
                model=model,
                source=_data_uri(_heatmap(answer["maps"], image.size)),
                verdict={(1, 1): "found", (1, 0): "missed", (0, 1): "false alarm", (0, 0): "passed"}[
                    int(answer["labels"]), int(answer["decisions"])
                ],
                score=float(answer["scores"]),
                severity=float(answer["severity"]),
            )
            for model, answer in answers.items()
        ],
    )


def _heatmap(cells: np.ndarray, size: tuple[int, int]) -> Image.Image:
    smooth = np.asarray(Image.fromarray(cells).resize(size, Image.Resampling.BILINEAR))
    return Image.fromarray(mpl.colormaps[COLORMAP](smooth, bytes=True)[..., :3])


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "webp", quality=78)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
