# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Raw predictions of a test set, collected in one pass."""

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from lightning.pytorch import Callback, LightningModule, Trainer


@dataclass
class Predictions:
    """Predictions of a model for a test set, before normalisation and clamping.

    Attributes:
        scores (torch.Tensor): Raw image scores, shape ``(N,)``.
        labels (torch.Tensor): Whether the image is anomalous, bool, shape ``(N,)``.
        paths (list[str]): Image files.
        mask_paths (list[str]): Files of the ground truth; an empty string where there is none.
        maps (torch.Tensor | None): Raw anomaly maps, shape ``(N, H, W)``; ``None`` for image-level models.
        masks (torch.Tensor | None): Ground truth at the maps' size, bool, shape ``(N, H, W)``; ``None`` without masks.
        image_size (tuple[int, int]): Height and width of the model's input.
    """

    scores: torch.Tensor
    labels: torch.Tensor
    paths: list[str]
    mask_paths: list[str]
    maps: torch.Tensor | None
    masks: torch.Tensor | None
    image_size: tuple[int, int]


class RawPredictions(Callback):
    """Collect raw predictions while :meth:`Engine.test` runs.

    Callbacks of the trainer run before those of the model, so this one reads the batch before the post-processor
    normalises and clamps it in place.
    """

    def __init__(self) -> None:
        self._batches: list[dict[str, Any]] = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - an ImageBatch, which Lightning's signature does not know
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the values for metrics and report, on the CPU."""
        del trainer, pl_module, batch, batch_idx, dataloader_idx
        score, maps, masks = outputs.pred_score, outputs.anomaly_map, outputs.gt_mask
        if score is None:  # as in the post-processor
            score = maps.amax(dim=(-2, -1))
        pattern = "n ... h w -> (n ...) h w"
        self._batches.append({
            "scores": score.detach().float().cpu().flatten(),
            "labels": outputs.gt_label.cpu().bool().flatten(),
            "paths": list(outputs.image_path),
            "mask_paths": [path or "" for path in outputs.mask_path or [""] * len(outputs.image_path)],
            "maps": None if maps is None else rearrange(maps.detach().float().cpu(), pattern),
            "masks": None if masks is None else rearrange(masks.cpu().bool(), pattern),
            "image_size": tuple(outputs.image.shape[-2:]),
        })

    def collect(self) -> Predictions:
        """Join the batches.

        Returns:
            Predictions: The predictions of the whole test set.

        Raises:
            ValueError: If the test set was empty, or a score or map is not finite.
        """
        if not self._batches:
            msg = "The test set holds no image; check the datamodule's root and category."
            raise ValueError(msg)

        def join(name: str) -> torch.Tensor | None:
            parts = [batch[name] for batch in self._batches]
            return None if any(part is None for part in parts) else torch.cat(parts)

        predictions = Predictions(
            scores=join("scores"),
            labels=join("labels"),
            paths=[path for batch in self._batches for path in batch["paths"]],
            mask_paths=[path for batch in self._batches for path in batch["mask_paths"]],
            maps=join("maps"),
            masks=join("masks"),
            image_size=self._batches[0]["image_size"],
        )
        for name, values in (("image score", predictions.scores), ("anomaly map", predictions.maps)):
            if values is not None and not torch.isfinite(values).all():
                msg = f"The model returned an {name} that is not finite, so no metric can be computed from it."
                raise ValueError(msg)
        return predictions
