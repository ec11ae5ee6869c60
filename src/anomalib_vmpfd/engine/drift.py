# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Drift of the images: whether brightness, contrast and sharpness are still those that thresholds come from."""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from anomalib.data import Batch
from kornia.color import rgb_to_grayscale
from kornia.filters import laplacian
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from torch import Tensor, nn

from .calibration import threshold_at_fpr

logger = logging.getLogger(__name__)

STATISTICS = ("brightness", "contrast", "sharpness")
FPR = 0.01
DARKEST = 1e-3  # below the steps of eight bits, so that black images have a logarithm


class ImageDrift(nn.Module):
    """How far an image's statistics lie from those of normal images.

    A verdict holds for images as those that thresholds were taken from; a fading lamp or a lens out of focus changes
    scores without any defect. The statistics are logarithms of mean, standard deviation and mean absolute Laplacian of
    the grey image, so that a change of exposure is a shift. Each is standardised by the normal images, and the largest
    deviation is divided by the limit that a hundredth of such images exceeds. The images are those of training, or
    those of a recalibration, as thresholds are taken from these then.

    Example:
        >>> drift = ImageDrift()
        >>> drift.fit([0.5 + 0.1 * torch.rand(64, 3, 32, 32)])
        >>> bool(drift(0.1 * torch.rand(1, 3, 32, 32)) > 1)
        True
    """

    mean: Tensor
    std: Tensor
    limit: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(STATISTICS)))
        # until it is fitted, no image is far
        self.register_buffer("std", torch.full((len(STATISTICS),), torch.inf))
        self.register_buffer("limit", torch.ones(()))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Learn what is usual from normal images in [0, 1], batches of shape ``(B, 3, H, W)``."""
        self.fit_statistics(torch.cat([self.statistics(images) for images in batches]))

    def fit_statistics(self, seen: Tensor) -> None:
        """Learn what is usual from the statistics of normal images, ``(N, 3)``."""
        self.mean.copy_(seen.mean(0))
        # images that are all alike still differ by the steps of eight bits
        self.std.copy_(seen.std(0, unbiased=False).clamp_min(0.01))
        self.limit.copy_(threshold_at_fpr(self.deviations(seen).amax(1), FPR).clamp_min(3))

    def deviations(self, statistics: Tensor) -> Tensor:
        """Absolute deviations of statistics ``(B, 3)`` from those of the normal images in standard deviations."""
        return ((statistics - self.mean) / self.std).abs()

    @staticmethod
    def statistics(images: Tensor) -> Tensor:
        """Logarithms of brightness, contrast and sharpness of images in [0, 1], ``(B, 3, H, W)``: ``(B, 3)``."""
        grey = rgb_to_grayscale(images.float())
        values = (grey.mean((1, 2, 3)), grey.std((1, 2, 3)), laplacian(grey, 3).abs().mean((1, 2, 3)))
        return torch.stack(values, dim=1).clamp_min(DARKEST).log()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Drift of images in [0, 1], ``(B, 3, H, W)``: ``(B,)``, above 1 beyond what the normal images show."""
        return self.deviations(self.statistics(images)).amax(1) / self.limit


class DriftGuard(Callback):
    """Says at the end of a test or prediction how many images are unlike those that thresholds come from."""

    def __init__(self) -> None:
        self._drifts: list[Tensor] = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Batch,
        *args,
    ) -> None:
        """Measure the drift of a batch, and add it to the predictions as ``drift``, ``(B,)``."""
        del trainer, args
        outputs.drift = pl_module.drift(batch.image)
        self._drifts.append(outputs.drift)

    on_predict_batch_end = on_test_batch_end

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if images drifted."""
        del trainer, pl_module
        drifts = torch.cat(self._drifts) if self._drifts else torch.zeros(0)
        self._drifts.clear()
        if count := int((drifts > 1).sum()):
            logger.warning(
                f"{count} of {len(drifts)} images differ in brightness, contrast or sharpness from the normal images "
                f"that thresholds come from (drift up to {drifts.max():.1f}, 1 is the limit): thresholds may not hold "
                "for them. Mend light and focus, calibrate on normal images like these, or train on them."
            )

    on_predict_end = on_test_end
