# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A second model, to show what ``CalibratedMixin`` gives: docs/add-a-model.md quotes it."""

import torch
from anomalib.data import Batch, InferenceBatch
from anomalib.models.components import AnomalibModule
from anomalib.visualization import Visualizer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.anomaly.scale import bounded
from anomalib_vmpfd.engine.learnt_data import LearntImages
from anomalib_vmpfd.engine.module import CalibratedMixin


class LocalContrastModel(nn.Module):
    """How far the contrast of a cell lies from that of normals there, in standard deviations; the mean is trained."""

    std: Tensor

    def __init__(self, image_size: tuple[int, int], cell: int) -> None:
        super().__init__()
        self.cell = cell
        shape = (1, 3, image_size[0] // cell, image_size[1] // cell)
        self.mean = nn.Parameter(torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def contrast(self, images: Tensor) -> Tensor:
        return F.avg_pool2d((images - F.avg_pool2d(images, 5, 1, 2)).abs(), self.cell)

    def forward(self, images: Tensor) -> Tensor | InferenceBatch:
        error = ((self.contrast(images) - self.mean) / self.std).square().mean(1, keepdim=True)
        if self.training:
            return error.mean()
        anomaly_map = F.interpolate(bounded(error).nan_to_num(nan=1.0), scale_factor=self.cell, mode="nearest")
        return InferenceBatch(pred_score=anomaly_map.amax((1, 2, 3)), anomaly_map=anomaly_map)


class LocalContrast(CalibratedMixin, AnomalibModule):
    """Anomalous is what has another contrast than normals have at its location."""

    def __init__(
        self,
        image_size: tuple[int, int] = (64, 64),
        cell: int = 2,
        lr: float = 1e-3,
        epochs: int = 2,
        seed: int = 0,
        visualizer: Visualizer | bool = True,
    ) -> None:
        super().__init__(self.configure_pre_processor(image_size), visualizer=visualizer)
        self.model = LocalContrastModel(image_size, cell)
        self.lr, self.epochs, self.seed = lr, epochs, seed

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=self.lr)

    def fit_normals(self, images: LearntImages) -> None:
        contrast = torch.cat([self.model.contrast(batch.image) for batch, _ in images])
        self.model.std.copy_(contrast.std(0) + 0.1 * contrast.std())

    def loss_terms(self, batch: Batch) -> dict[str, Tensor]:
        return {"distance": self.model(batch.image)}
