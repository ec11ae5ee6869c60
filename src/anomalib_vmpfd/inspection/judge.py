# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A checkpoint or an export that judges image files, with the rows of ``anomalib predict``."""

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from anomalib_vmpfd.decide.runtimes import ASSURED, Answer, Checkpoint, Exported
from anomalib_vmpfd.decide.threshold import current_metadata
from anomalib_vmpfd.plotting.threshold import pixel_threshold
from anomalib_vmpfd.plotting.visualizer import TITLES
from anomalib_vmpfd.predictions.callback import check_sum
from anomalib_vmpfd.predictions.row_files import Row
from anomalib_vmpfd.predictions.rows import prediction_row

from .reading import for_display, read_part

ANOMALY_MAP = "anomaly_map"


class Panel(NamedTuple):
    """What can be drawn of an image.

    Attributes:
        values (np.ndarray): Map ``(h, w)``, or a picture ``(h, w, 3)`` in [0, 1].
        calibrated (bool): Whether 0 and 1 of a map are quantiles of normal images, as of TAM; else it is in [0, 1].
        threshold (float | None): Pixel threshold on the scale of a map.
    """

    values: np.ndarray
    calibrated: bool = False
    threshold: float | None = None


class View(NamedTuple):
    """An image, and one panel of it.

    Attributes:
        image (np.ndarray): The image as stored, ``(H, W, 3)`` in [0, 1].
        mask (np.ndarray): Predicted mask ``(h, w)``, boolean.
        panel (Panel): The panel.
    """

    image: np.ndarray
    mask: np.ndarray
    panel: Panel


class _Seen(NamedTuple):
    """The last image, so that a zoom reads and judges nothing again."""

    file: Path
    image: np.ndarray
    answer: Answer
    drift: float | None
    explained: dict[str, Panel]


class Judge(ABC):
    """A model, one image at a time.

    Attributes:
        path (Path): Checkpoint or export.
        threshold (float): Score from which on an image is anomalous.
        pixel_threshold (float): The same of the anomaly map.
        titles (dict[str, str]): Titles of the panels by name, the anomaly map first.
        image_fpr (float | None): False-positive rate that the threshold was taken for, where normal images gave it.
    """

    path: Path
    threshold: float
    pixel_threshold: float
    titles: dict[str, str]
    image_fpr: float | None = None
    _check_sum: str
    _deep: bool

    def __init__(self) -> None:
        # a model is no faster for two at a time, and needs twice the memory
        self._lock = Lock()
        self._last: _Seen | None = None

    def row(self, file: Path, name: str | None = None) -> Row:
        """Judge an image.

        Args:
            file (Path): The image.
            name (str | None): What it is called in the row. Defaults to ``None``: the path.

        Returns:
            Row: The row that ``anomalib predict`` writes.

        Raises:
            ImageError: If it cannot be read.
        """
        with self._lock:
            _, image, answer, drift, _ = self._see(file)
        size = (image.shape[1], image.shape[2])
        mask = self._mask(answer)
        return prediction_row(
            name or str(file),
            answer.score,
            answer.label,
            self.threshold,
            drift,
            size,
            mask,
            answer.anomaly_map,
            self._check_sum,
        )

    def view(self, file: Path, panel: str = ANOMALY_MAP) -> View:
        """Look at an image.

        Args:
            file (Path): The image.
            panel (str): Name of one of the panels.

        Returns:
            View: What is drawn of it.

        Raises:
            ImageError: If it cannot be read.
        """
        with self._lock:
            seen = self._see(file)
            if panel != ANOMALY_MAP and not seen.explained:
                seen.explained.update(self._explain(seen.image))
        shown = Panel(seen.answer.anomaly_map, threshold=self.pixel_threshold)
        return View(for_display(seen.image, deep=self._deep), self._mask(seen.answer), seen.explained.get(panel, shown))

    def _see(self, file: Path) -> _Seen:
        if self._last is None or self._last.file != file:
            self._last = None  # not two large images at a time
            image = read_part(file, deep=self._deep)
            self._last = _Seen(file, image, *self._answer(image), {})
        return self._last

    def _mask(self, answer: Answer) -> np.ndarray:
        return answer.anomaly_map >= np.float32(self.pixel_threshold)

    @abstractmethod
    def _explain(self, image: np.ndarray) -> dict[str, Panel]:
        """Panels of the model's own."""

    @abstractmethod
    def _answer(self, image: np.ndarray) -> tuple[Answer, float | None]:
        """Answer and drift."""


class CheckpointJudge(Judge):
    """A checkpoint in PyTorch, with the maps that ``explain`` gives.

    Args:
        path (Path): The checkpoint.

    Raises:
        ValueError: If it is of no model of this package, or has no thresholds.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._checkpoint = Checkpoint(path)
        self._model = self._checkpoint.model
        post_processor = self._model.post_processor
        if post_processor is None or not post_processor.enable_thresholding:
            msg = f"{path} has no thresholds; train with a post-processor."
            raise ValueError(msg)
        self.threshold = float(post_processor.normalized_image_threshold)
        self.pixel_threshold = float(post_processor.normalized_pixel_threshold)
        if getattr(post_processor, "threshold", None) == "normals":
            self.image_fpr = post_processor.image_fpr
        self._check_sum = check_sum(self._model)
        self._deep = self._checkpoint.reads_deep
        titles = TITLES | dict(getattr(self._model, "panel_titles", {}))
        height, width = self._checkpoint.image_size or (256, 256)
        seen = self._explain(np.zeros((3, height, width), np.float32))
        self.titles = {name: titles.get(name, name) for name in (ANOMALY_MAP, *seen)}

    @torch.inference_mode()
    def _answer(self, image: np.ndarray) -> tuple[Answer, float | None]:
        tensor = torch.from_numpy(image)[None]
        drift = self._model.drift(self._model.pre_processor(tensor) if self._model.pre_processor else tensor)
        return self._checkpoint(image), drift.item()

    @torch.inference_mode()
    def _explain(self, image: np.ndarray) -> dict[str, Panel]:
        if not hasattr(self._model.model, "explain"):
            return {}
        seen: dict[str, Tensor] = self._model.explain(torch.from_numpy(image))
        of_masks = pixel_threshold(self._model.post_processor, calibrated=True)
        return {name: _panel(values[0], of_masks) for name, values in seen.items() if values.ndim == 4}


class ExportJudge(Judge):
    """An export in ONNX Runtime or OpenVINO; thresholds are those of its ``metadata.json``.

    Args:
        path (Path): The ``.onnx`` or ``.xml`` file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no export of anomalib.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._exported = Exported(path, ASSURED)
        metadata = current_metadata(path, self._exported.metadata)
        thresholds = metadata.get("thresholds", {})
        self.threshold = thresholds.get("pred_score", 0.5)
        self.pixel_threshold = thresholds.get("anomaly_map", 0.5)
        self._deep = self._exported.reads_deep
        content = b"".join(each.read_bytes() for each in (path, path.with_suffix(".bin")) if each.is_file())
        self._check_sum = hashlib.sha256(content).hexdigest()[:12]
        self.titles = {ANOMALY_MAP: TITLES[ANOMALY_MAP]}

    def _answer(self, image: np.ndarray) -> tuple[Answer, float | None]:
        answer = self._exported(image)
        return answer._replace(label=bool(np.float32(answer.score) >= np.float32(self.threshold))), None

    def _explain(self, image: np.ndarray) -> dict[str, Panel]:  # noqa: PLR6301
        del image
        return {}


def judge_of(path: Path) -> Judge:
    """The judge of a checkpoint, or of a ``.onnx`` or ``.xml`` export."""
    return ExportJudge(path) if path.suffix in {".onnx", ".xml"} else CheckpointJudge(path)


def _panel(values: Tensor, threshold: float | None) -> Panel:
    if len(values) == 3:
        return Panel(values.permute(1, 2, 0).numpy())
    return Panel(values[0].numpy(), calibrated=True, threshold=threshold)
