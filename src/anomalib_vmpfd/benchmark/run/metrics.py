# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Ranking metrics and curves from raw predictions.

anomalib's default evaluator ranks scores after normalisation and clamping, and torchmetrics puts a sigmoid over every
batch outside [0, 1]; either can tie or reorder scores. Here the whole set is scaled to [0, 1] once, in float64, which
preserves the order. Metrics that need a threshold (F1, IoU) come from :class:`DecisionEvaluator`.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from anomalib.metrics import AUPIMO, AUPRO, Evaluator, F1Score, create_anomalib_metric
from lightning.pytorch import LightningModule, Trainer
from torchmetrics.classification import BinaryJaccardIndex
from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc
from torchmetrics.utilities.compute import auc

from anomalib_vmpfd.benchmark.records import FPR_LIMIT, PIMO_BOUNDS

from .predictions import Predictions

if TYPE_CHECKING:
    from anomalib.data import Batch

CURVE_POINTS = 200
IoU = create_anomalib_metric(BinaryJaccardIndex)


@dataclass
class Ranking:
    """How well scores rank anomalies above normals.

    Attributes:
        auroc (float): Area under the ROC curve.
        ap (float): Average precision.
        f1_max (float): Best F1 over all thresholds; an upper bound, as the threshold is chosen by the test labels.
        roc (tuple[list[float], list[float]]): False and true positive rate, thinned for plotting.
    """

    auroc: float
    ap: float
    f1_max: float
    roc: tuple[list[float], list[float]]


def rank(scores: torch.Tensor, labels: torch.Tensor) -> Ranking | None:
    """Compute the threshold-free metrics of scores.

    Args:
        scores (torch.Tensor): Raw scores of any shape and range, higher for anomalies.
        labels (torch.Tensor): Ground truth of the same shape.

    Returns:
        Ranking | None: The metrics, or ``None`` if the labels hold a single class.
    """
    scores, labels = scores.flatten().double(), labels.flatten().long()
    if labels.min() == labels.max():
        return None
    spread = (scores.max() - scores.min()).clamp(min=torch.finfo(torch.double).tiny)
    unit = (scores - scores.min()) / spread
    fpr, tpr, _ = binary_roc(unit, labels)
    precision, recall, _ = binary_precision_recall_curve(unit, labels)
    precision, recall = precision.double(), recall.double()
    f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    return Ranking(
        auroc=torch.trapezoid(tpr.double(), fpr.double()).item(),
        ap=-torch.sum(torch.diff(recall) * precision[:-1]).item(),
        f1_max=f1.max().item(),
        roc=_thin(fpr, tpr),
    )


def pro(maps: torch.Tensor, masks: torch.Tensor) -> tuple[float, tuple[list[float], list[float]]]:
    """Compute the area under the per-region overlap curve up to a false positive rate of 30 %, and the curve.

    Args:
        maps (torch.Tensor): Raw anomaly maps, shape ``(N, H, W)``.
        masks (torch.Tensor): Ground truth, shape ``(N, H, W)``.

    Returns:
        tuple[float, tuple[list[float], list[float]]]: Area divided by the limit, and the thinned curve.
    """
    metric = AUPRO(fields=["anomaly_map", "gt_mask"], fpr_limit=FPR_LIMIT)
    metric.update(cast("Batch", SimpleNamespace(anomaly_map=maps, gt_mask=masks)))
    fpr, overlap = metric.compute_pro(cca=metric.perform_cca(), preds=maps)
    return (auc(fpr, overlap, reorder=True) / fpr[-1]).item(), _thin(fpr, overlap)


def aupimo(maps: torch.Tensor, masks: torch.Tensor, labels: torch.Tensor) -> float | None:
    """Compute the mean area under the per-image overlap curve of the anomalous images (AUPIMO, Bertoldo et al. 2024).

    anomalib's metric places 300,000 thresholds evenly and holds four counts of each for every image, gigabytes for 200
    images. Only the highest values of the normal images lie within the bounds, so here these are the thresholds: every
    map is replaced by the number of them that it reaches, which leaves the definition as it is, and exact.

    Args:
        maps (torch.Tensor): Raw anomaly maps, shape ``(N, H, W)``.
        masks (torch.Tensor): Ground truth, bool, shape ``(N, H, W)``.
        labels (torch.Tensor): Whether the image is anomalous, bool, shape ``(N,)``. Those without a mask are left out.

    Returns:
        float | None: The metric; ``None`` if no threshold comes within 5 % of either bound, as the normal images have
            too few pixels (about 16 images of 256 x 256 suffice) or too many equal values.
    """
    marked = masks.flatten(1).any(dim=1)
    normal = maps[~marked & ~labels].flatten()
    count = min(int(1.1 * PIMO_BOUNDS[1] * len(normal)) + 2, len(normal))
    highest, counts = normal.topk(count).values.unique_consecutive(return_counts=True)
    highest, rates = highest[:-1], counts[:-1].cumsum(0) / len(normal)  # the last may stand for more pixels
    if not all(torch.any((rates / bound - 1).abs() < 0.05) for bound in PIMO_BOUNDS):
        return None
    reached = torch.bucketize(maps[marked | ~labels], highest.flip(0), right=True).float()
    # steps of a half, as anomalib's thresholds at whole numbers may be rounded to either side
    metric = AUPIMO(num_thresholds=2 * len(highest) + 1, fpr_bounds=PIMO_BOUNDS, force=True)
    metric.update(cast("Batch", SimpleNamespace(anomaly_map=reached, gt_mask=masks[marked | ~labels])))
    return metric.compute().item()


class DecisionEvaluator(Evaluator):
    """Metrics at the model's own threshold, under anomalib's names, and the decisions themselves.

    ``image_F1Score``, ``pixel_F1Score`` and ``pixel_BinaryJaccardIndex`` are computed from the labels and masks of the
    model's post-processor, as in ``anomalib test``.
    """

    def __init__(self) -> None:
        super().__init__(
            test_metrics=[
                F1Score(fields=["pred_label", "gt_label"], prefix="image_"),
                F1Score(fields=["pred_mask", "gt_mask"], prefix="pixel_", strict=False),
                IoU(fields=["pred_mask", "gt_mask"], prefix="pixel_", strict=False),
            ],
        )
        self.decisions: list[bool] = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - an ImageBatch, which Lightning's signature does not know
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Update the metrics and keep the labels."""
        super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        self.decisions += outputs.pred_label.flatten().tolist()


def evaluate(predictions: Predictions) -> tuple[dict[str, float], dict[str, tuple[list[float], list[float]]]]:
    """Compute all threshold-free metrics of a test set.

    Args:
        predictions (Predictions): Raw predictions.

    Returns:
        tuple[dict[str, float], dict[str, tuple[list[float], list[float]]]]: Metrics by column name, and the curves
            ``image_roc``, ``pixel_roc`` and ``pro``. What cannot be computed (no maps, no masks, one class) is missing.
    """
    metrics: dict[str, float] = {}
    curves: dict[str, tuple[list[float], list[float]]] = {}
    pixels = predictions.maps is not None and predictions.masks is not None
    for level, ranking in (
        ("image", rank(predictions.scores, predictions.labels)),
        ("pixel", rank(predictions.maps, predictions.masks) if pixels else None),
    ):
        if ranking is not None:
            metrics |= {f"{level}_AUROC": ranking.auroc, f"{level}_AP": ranking.ap, f"{level}_F1Max": ranking.f1_max}
            curves[f"{level}_roc"] = ranking.roc
    if "pixel_roc" in curves:
        metrics["AUPRO"], curves["pro"] = pro(predictions.maps, predictions.masks)
        if (area := aupimo(predictions.maps, predictions.masks, predictions.labels)) is not None:
            metrics["AUPIMO"] = area
    return metrics, curves


def _thin(x: torch.Tensor, y: torch.Tensor) -> tuple[list[float], list[float]]:
    """Subsample a monotonic curve, equally spaced along its length so that no step is lost."""
    x, y = x.double().cpu().numpy(), y.double().cpu().numpy()
    if len(x) > CURVE_POINTS:
        along = np.cumsum(np.hypot(np.diff(x, prepend=x[0]), np.diff(y, prepend=y[0])))
        keep = np.unique(np.searchsorted(along, np.linspace(0, along[-1], CURVE_POINTS)).clip(max=len(x) - 1))
        x, y = x[keep], y[keep]
    return np.round(x, 5).tolist(), np.round(y, 5).tolist()
