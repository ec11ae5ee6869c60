# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Post-processor with thresholds from normals and a normalisation that keeps every ranking."""

import inspect
import logging
from collections.abc import Iterable
from typing import Any, Literal

import torch
from anomalib.data import Batch, InferenceBatch
from anomalib.post_processing import PostProcessor
from lightning import LightningModule, Trainer
from torch import Tensor

from anomalib_vmpfd.anomaly.scale import bounded, unbounded

from .calibration import threshold_at_fpr

BELOW_HALF = 0.5 - 2**-24
Threshold = Literal["normals", "f1"]
CALIBRATED = {"threshold", "image_fpr", "mask_fpr"}

logger = logging.getLogger(__name__)


class RankPreservingPostProcessor(PostProcessor):
    """anomalib's post-processor, without its clamp and with thresholds that need no anomalies.

    Scores are normalised by ``0.5 + 0.5 d / (1 + |d|)`` with ``d = (score - threshold) / (max - min)``: the threshold
    comes to lie at 0.5, as anomalib's users expect, but no two different scores become equal, so that AUROC and the
    other ranking metrics are those of the raw scores. A score equal to the threshold counts as anomalous, as in the
    F1 threshold of anomalib itself.

    Args:
        threshold (str): ``"normals"`` takes both thresholds from normal images at the given false-positive rates,
            through :meth:`calibrate`; ``"f1"`` is anomalib's threshold of the best F1 score on the validation
            set, which needs anomalies there.
        image_fpr (float): False-positive rate for images.
        mask_fpr (float): Share of normal images with any pixel in their mask: a rate for pixels would either drown
            small defects or depend on their size.
        enable_normalization (bool): Normalise scores and maps.
        enable_thresholding (bool): Give labels and masks.
        image_sensitivity (float): anomalib's shift of the image threshold: 0.5 leaves it, more finds more.
        pixel_sensitivity (float): The same of the pixel threshold.

    Raises:
        ValueError: If a rate is not between 0 and 1 or the kind of threshold is unknown.
    """

    def __init__(
        self,
        threshold: Threshold = "normals",
        image_fpr: float = 0.05,
        mask_fpr: float = 0.1,
        enable_normalization: bool = True,
        enable_thresholding: bool = True,
        image_sensitivity: float = 0.5,
        pixel_sensitivity: float = 0.5,
    ) -> None:
        super().__init__(
            enable_normalization=enable_normalization,
            enable_thresholding=enable_thresholding,
            image_sensitivity=image_sensitivity,
            pixel_sensitivity=pixel_sensitivity,
        )
        if threshold not in {"normals", "f1"}:
            msg = f"Unknown threshold {threshold!r}; choose 'normals' or 'f1'."
            raise ValueError(msg)
        for name, rate in (("image_fpr", image_fpr), ("mask_fpr", mask_fpr)):
            self.check_rate(name, rate)
        self.threshold = threshold
        self.image_fpr = image_fpr
        self.mask_fpr = mask_fpr

    @staticmethod
    def check_rate(name: str, rate: float) -> None:
        """Refuse a false-positive rate that is not between 0 and 1."""
        if not 0 < rate < 1:
            msg = f"{name} is a false-positive rate between 0 and 1, got {rate}."
            raise ValueError(msg)

    @property
    def _checkpoint_config_keys(self) -> tuple[str, ...]:
        return (*super()._checkpoint_config_keys, "threshold", "image_fpr", "mask_fpr")

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore the settings of a checkpoint, but for those that were given to this post-processor.

        Args:
            config (dict[str, Any]): Settings by name, as ``checkpoint_config`` gave them.

        Raises:
            ValueError: If the kind of threshold or a false-positive rate was given and differs: the checkpoint's
                thresholds are those of its own.
        """
        defaults = {name: p.default for name, p in inspect.signature(type(self).__init__).parameters.items()}
        given = {
            key: value
            for key in self._checkpoint_config_keys
            if (value := getattr(self, key)) != defaults.get(key, value) and value != config.get(key, value)
        }
        if fixed := sorted(given.keys() & CALIBRATED):
            differences = "; ".join(
                f"{key}={given[key]}, the checkpoint's thresholds are for {config[key]}" for key in fixed
            )
            msg = (
                f"The post-processor was given {differences}. Leave it out, or train again with it; `anomalib-vmpfd "
                "calibrate` gives a checkpoint other rates."
            )
            raise ValueError(msg)
        super().load_checkpoint_config(config)
        for key, value in given.items():
            logger.info(f"The post-processor keeps {key}={value}; the checkpoint has {config[key]}.")
            setattr(self, key, value)

    def calibrate(self, predictions: Iterable[InferenceBatch]) -> Tensor:
        """Set thresholds and ranges from normal images; sets nothing for the F1 threshold.

        Args:
            predictions (Iterable[InferenceBatch]): Scores and anomaly maps in [0, 1] of normal images as those of new
                ones, in batches.

        Returns:
            Tensor: Their scores, not bounded, ``(N,)``.
        """
        scores, largest, smallest = [], [], []
        for batch in predictions:
            scores.append(batch.pred_score.detach().flatten())
            largest.append(batch.anomaly_map.detach().flatten(1).amax(1))
            smallest.append(batch.anomaly_map.detach().flatten(1).amin(1))
        image, most, least = (torch.cat(parts).float() for parts in (scores, largest, smallest))
        if self.threshold != "normals":
            return unbounded(image)
        self._image_threshold.copy_(bounded(threshold_at_fpr(unbounded(image), self.image_fpr)))
        self._pixel_threshold.copy_(bounded(threshold_at_fpr(unbounded(most), self.mask_fpr)))
        for name, value in (("image_min", image), ("image_max", image), ("pixel_min", least), ("pixel_max", most)):
            getattr(self, name).copy_(value.min() if name.endswith("min") else value.max())
        return unbounded(image)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Batch,
        *args,
        **kwargs,
    ) -> None:
        """Collect the validation set where the F1 threshold needs it."""
        if self.threshold == "f1":
            super().on_validation_batch_end(trainer, pl_module, outputs, *args, **kwargs)

    @staticmethod
    def _apply_threshold(preds: Tensor | None, threshold: Tensor) -> Tensor | None:
        return None if preds is None else preds >= threshold

    @staticmethod
    def _normalize(
        preds: Tensor | None,
        norm_min: Tensor,
        norm_max: Tensor,
        threshold: Tensor,
    ) -> Tensor | None:
        if preds is None:
            return None
        value_range = norm_max - norm_min
        threshold = torch.where(torch.isnan(threshold), (norm_max + norm_min) / 2, threshold)
        # one score in all, or none: any positive range keeps the order
        value_range = torch.where(value_range > 0, value_range, torch.ones_like(value_range))
        normalized = bounded((preds - threshold) / value_range)
        # rounding must not lift a score that is just below the threshold up to it
        normalized = torch.where(preds < threshold, normalized.clamp_max(BELOW_HALF), normalized)
        return torch.where(torch.isnan(threshold), preds, normalized)
