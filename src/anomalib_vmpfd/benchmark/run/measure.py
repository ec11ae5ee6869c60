# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""One run: build a model from a seed, train it, test it and measure its cost."""

import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from anomalib.data import AnomalibDataModule
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.benchmark.records import RunResult

from .build import build
from .environment import describe
from .kept_training import KeptTraining
from .losses import Losses
from .metrics import DecisionEvaluator, evaluate
from .predictions import Predictions, RawPredictions
from .spec import RunSpec
from .speed import checkpoint_mb, measure_speed, peak_memory_mb

MAP_SIDE = 128


class LastValidation(Callback):
    """Record the training step of the last validation."""

    def __init__(self) -> None:
        self.step = -1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the step."""
        del pl_module
        self.step = trainer.global_step


def measure(spec: RunSpec) -> RunResult:
    """Train, test and measure one model.

    Args:
        spec (RunSpec): What to run.

    Returns:
        RunResult: Its row, scores and heatmaps.
    """
    if spec.threads:
        torch.set_num_threads(spec.threads)
    base_memory = peak_memory_mb(torch.device("cpu"))
    with TemporaryDirectory() as folder:
        seed_everything(spec.key.seed, workers=True)
        model, datamodule, trainer_args = build(spec)
        trainer_args["default_root_dir"] = folder

        validated, losses = LastValidation(), Losses()
        kept = KeptTraining(Path(spec.training)) if spec.training else None
        callbacks = [*trainer_args.get("callbacks", []), validated, losses, *(kept.callbacks if kept else [])]
        engine = Engine(**trainer_args | {"callbacks": callbacks})
        start = time.perf_counter()
        engine.fit(model=model, datamodule=datamodule, ckpt_path=kept.checkpoint if kept else None)
        trainer = engine.trainer
        if validated.step != trainer.global_step:
            # max_steps ended within an epoch, or validation is rare: the threshold must be that of the final weights
            trainer.validate(model, datamodule=datamodule, verbose=False)
        train_seconds = kept.seconds.total if kept else time.perf_counter() - start
        checkpoint = Path(folder) / "model.ckpt"
        trainer.save_checkpoint(checkpoint, weights_only=True)  # no optimizer state, as for deployment
        if spec.checkpoint:
            Path(spec.checkpoint).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkpoint, spec.checkpoint)

        recorder = RawPredictions()
        model.evaluator, model.visualizer = DecisionEvaluator(), None
        tester = Engine(**trainer_args | {"callbacks": [recorder]})
        start = time.perf_counter()
        decided = tester.test(model=model, datamodule=datamodule, verbose=False)[0]
        test_seconds = time.perf_counter() - start
        predictions = recorder.collect()

        device = trainer.strategy.root_device
        images = _images(datamodule, spec.speed.batch_size, predictions.image_size)
        speed = measure_speed(model, images, device, trainer.precision_plugin.forward_context, spec.speed)
        memory = peak_memory_mb(device)  # before the metrics, which sort all pixels
        metrics, curves = evaluate(predictions)
        image_threshold, pixel_threshold = _thresholds(model)
        row = {
            **spec.key._asdict(),
            "status": "ok",
            **metrics,
            "image_F1Score": decided.get("image_F1Score"),
            "pixel_F1Score": decided.get("pixel_F1Score") if "pixel_AUROC" in metrics else None,
            "pixel_IoU": decided.get("pixel_BinaryJaccardIndex") if "pixel_AUROC" in metrics else None,
            "threshold": image_threshold,
            "pixel_threshold": pixel_threshold,
            "train_seconds": train_seconds,
            "train_steps": trainer.global_step,
            "train_epochs": trainer.current_epoch,
            "test_seconds": test_seconds,
            **speed,
            "peak_memory_mb": memory,
            "base_memory_mb": base_memory,
            "checkpoint_mb": checkpoint_mb(checkpoint),
            "precision": trainer.precision,
            "val_split": str(getattr(datamodule.val_split_mode, "value", "")),
            "image_size": "x".join(map(str, predictions.image_size)),
            "train_images": len(datamodule.train_data),
            "test_images": len(predictions.paths),
            **describe(device),
            "settings": spec.settings,
        }
    if kept is not None:
        kept.path.unlink(missing_ok=True)
    return RunResult(
        row=row,
        predictions={
            "images": [f"{Path(path).parent.name}/{Path(path).name}" for path in predictions.paths],
            "labels": predictions.labels.int().tolist(),
            "scores": [float(f"{score:.9g}") for score in predictions.scores],  # the precision of float32
            "decisions": [int(decision) for decision in model.evaluator.decisions],
            "threshold": image_threshold,
            "curves": curves,
            "losses": losses.epochs,
        },
        maps=_gallery_maps(predictions, pixel_threshold),
    )


def _images(datamodule: AnomalibDataModule, count: int, size: tuple[int, int]) -> torch.Tensor:
    """Take the first images of the test set, in [0, 1] and at the input size of the model."""
    images = [cast("torch.Tensor", datamodule.test_data[i].image) for i in range(min(count, len(datamodule.test_data)))]
    return torch.cat([F.interpolate(image[None], size, mode="bilinear", antialias=True) for image in images])


def _thresholds(model: AnomalibModule) -> tuple[float | None, float | None]:
    """Read the thresholds of raw scores and raw maps from the model's post-processor."""
    found = []
    for name in ("image_threshold", "pixel_threshold"):
        value = getattr(model.post_processor, name, None)
        found.append(None if value is None or torch.isnan(value) else value.item())
    return found[0], found[1]


def _gallery_maps(predictions: Predictions, threshold: float | None) -> dict[str, Any]:
    """Scale maps alike for all images and models: 0 a low quantile, 0.5 the model's own threshold, 1 the maximum."""
    if predictions.maps is None:
        return {}
    maps = predictions.maps
    side = [min(MAP_SIDE, length) for length in maps.shape[-2:]]
    low, high = torch.quantile(maps[:, ::8, ::8].flatten()[: 2**24], 0.05), maps.max()
    middle = high if threshold is None else torch.tensor(threshold).clamp(low, high)
    small = F.adaptive_max_pool2d(maps[:, None], side)[:, 0]  # preserves the maxima of thin defects
    eps = torch.finfo(maps.dtype).eps
    below = 0.5 * (small - low) / (middle - low).clamp(min=eps)
    above = 0.5 + 0.5 * (small - middle) / (high - middle).clamp(min=eps)
    scaled = torch.where(small > middle, above, below).clamp(0, 1)
    return {"maps": (scaled * 255).round().byte().numpy(), "files": predictions.paths, "masks": predictions.mask_paths}
