# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Rows, and on request masks and maps, of every image that is tested or predicted."""

import hashlib
from pathlib import Path
from typing import Literal

from anomalib.data import Batch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from PIL import Image
from torch import Tensor

from .map_files import save_map, save_mask
from .picture_names import PictureNames, image_paths
from .row_files import Row, RowFiles
from .rows import LABELS, prediction_row
from .unfinished import restrict_to_unfinished


class PredictionFiles(Callback):
    """Write ``predictions.csv`` and ``predictions.jsonl`` beside the pictures, a row for each image as it is judged.

    The columns are ``path``, ``score``, ``label`` (``normal`` or ``anomalous``), ``threshold`` of that score,
    ``drift`` where the batch has it, ``width`` and ``height`` of the original image, ``model`` (a check sum of weights
    and thresholds) and ``regions`` of the predicted mask, see :class:`Region`; in CSV these are JSON. A killed run
    keeps its rows. Models of this package write them by themselves; give the callback for other arguments.

    Args:
        masks (str | None): ``"png"`` also saves predicted masks at the size of the originals, in ``masks``.
        maps (str | None): ``"tiff"`` also saves anomaly maps at that size, in ``maps``, as floats.
        resume (bool): Predict only those images of a folder that have no row yet.
        output_dir (str | Path | None): Folder of the files. Defaults to ``None``: that of the results.

    Raises:
        ValueError: If a format is unknown.

    Example:
        >>> from anomalib.engine import Engine
        >>> from anomalib_vmpfd import PredictionFiles
        >>> engine = Engine(callbacks=[PredictionFiles(masks="png")])
    """

    def __init__(
        self,
        masks: Literal["png"] | None = None,
        maps: Literal["tiff"] | None = None,
        resume: bool = False,
        output_dir: str | Path | None = None,
    ) -> None:
        for name, given, known in (("masks", masks, "png"), ("maps", maps, "tiff")):
            if given not in {None, known}:
                msg = f"{name}={given!r} is not written; give {known!r}, or leave it out."
                raise ValueError(msg)
        self.masks = masks
        self.maps = maps
        self.resume = resume
        self.output_dir = output_dir
        self._files: RowFiles | None = None
        self._model = ""
        self._counts = dict.fromkeys(LABELS.values(), 0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the files of this run, and what of an earlier one is kept.

        Raises:
            ValueError: If a test is to be resumed, whose metrics need all images.
        """
        del pl_module
        if stage not in {"test", "predict"}:
            return
        if self.resume and stage == "test":
            msg = "A test cannot be resumed, as its metrics need all images; leave out resume, or predict."
            raise ValueError(msg)
        folder = Path(self.output_dir or trainer.default_root_dir)
        rank = f"-{trainer.global_rank}" if trainer.global_rank else ""
        self._files = RowFiles(folder, f"predictions{rank}", self.resume)
        self._model = ""
        self._counts = dict.fromkeys(self._counts, 0)
        for row in self._files.kept:
            self._counts[row["label"]] += 1
        if self._files.kept:
            restrict_to_unfinished(trainer, {row["path"] for row in self._files.kept})

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note which model it is, and name the files.

        Raises:
            ValueError: If the rows that are there are of another one.
        """
        if self._files is None:
            return
        self._model = check_sum(pl_module)
        others = {row["model"] for row in self._files.kept} - {self._model}
        if others:
            msg = (
                f"{self._files.jsonl} holds rows of another model, or of other thresholds; leave out resume to write "
                "it anew, or give another output_dir."
            )
            raise ValueError(msg)
        datamodule = getattr(trainer, "datamodule", None)
        dataset = getattr(datamodule, "name", None), getattr(datamodule, "category", None)
        sources = image_paths(trainer)
        folder = self._files.csv.parent
        self._mask_names = PictureNames(folder / "masks", *dataset, sources, ".png")
        self._map_names = PictureNames(folder / "maps", *dataset, sources, ".tiff")

    on_predict_start = on_test_start

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Batch,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the rows of a batch."""
        del trainer, batch
        if self._files is None or getattr(outputs, "pred_score", None) is None:
            return
        paths = outputs.image_path or [f"{dataloader_idx}-{batch_idx}-{index}" for index in range(len(outputs.image))]
        threshold = getattr(pl_module.post_processor, "normalized_image_threshold", None)
        rows = [self._row(outputs, index, str(path), threshold) for index, path in enumerate(paths)]
        self._files.append(rows)
        for row in rows:
            self._counts[row["label"]] += 1

    on_predict_batch_end = on_test_batch_end

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say how many images were judged, and where the rows are."""
        if stage not in {"test", "predict"} or self._files is None or not any(self._counts.values()):
            return
        if not self._model:
            # nothing was left to predict, and Lightning did not start
            self.on_test_start(trainer, pl_module)
        counts = ", ".join(f"{count} {label}".strip() for label, count in self._counts.items() if count)
        kept = f" ({len(self._files.kept)} of an earlier run)" if self._files.kept else ""
        rank_zero_info(f"{sum(self._counts.values())} images: {counts}{kept}; rows in {self._files.csv}")
        self._files = None

    def _row(self, outputs: Batch, index: int, path: str, threshold: Tensor | None) -> Row:
        size = _original_size(path) or tuple(outputs.image.shape[-2:])
        drift = getattr(outputs, "drift", None)
        anomaly_map, mask = (
            None if values is None else values[index].detach().cpu().numpy().squeeze()
            for values in (outputs.anomaly_map, outputs.pred_mask)
        )
        if self.masks and mask is not None:
            save_mask(self._mask_names(path), mask, size)
        if self.maps and anomaly_map is not None:
            save_map(self._map_names(path), anomaly_map, size)
        label = None if outputs.pred_label is None else bool(outputs.pred_label[index])
        drift = None if drift is None else drift[index]
        score = outputs.pred_score[index]
        return prediction_row(path, score, label, threshold, drift, size, mask, anomaly_map, self._model)


def _original_size(path: str) -> tuple[int, int] | None:
    """Height and width of an image file as stored; ``None`` where there is none."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError:
        return None


def check_sum(module: LightningModule) -> str:
    """Check sum of what decides a verdict: weights, thresholds and settings of the post-processor."""
    total = hashlib.sha256()
    for value in module.state_dict().values():
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    settings = getattr(module.post_processor, "checkpoint_config", dict)
    total.update(repr(settings()).encode())
    return total.hexdigest()[:12]
