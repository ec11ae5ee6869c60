# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""One run: build a model from a seed, train it, test it, measure it."""

import logging
import pkgutil
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from anomalib.data import AnomalibDataModule
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.weights.loading import read_state_dict

from .config import RunResult, RunSpec
from .environment import describe
from .metrics import DecisionEvaluator, evaluate
from .predictions import Predictions, RawPredictions
from .speed import checkpoint_mb, measure_speed, peak_memory_mb

logger = logging.getLogger(__name__)
MAP_SIDE = 128
TRAINER_DEFAULTS = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


class LastValidation(Callback):
    """Remember after which training step the model was validated last."""

    def __init__(self) -> None:
        self.step = -1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the step."""
        del pl_module
        self.step = trainer.global_step


def run(spec: RunSpec) -> RunResult:
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

        validated = LastValidation()
        engine = Engine(**trainer_args | {"callbacks": [*trainer_args.get("callbacks", []), validated]})
        start = time.perf_counter()
        engine.fit(model=model, datamodule=datamodule)
        trainer = engine.trainer
        if validated.step != trainer.global_step:
            # max_steps ends inside an epoch, or validation is rare: the threshold must be that of the final weights.
            trainer.validate(model, datamodule=datamodule, verbose=False)
        train_seconds = time.perf_counter() - start
        checkpoint = Path(folder) / "model.ckpt"
        trainer.save_checkpoint(checkpoint, weights_only=True)  # no optimizer state: what one would deploy
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
        memory = peak_memory_mb(device)  # before the metrics, which sort all pixels, need more
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
    return RunResult(
        row=row,
        predictions={
            "images": [f"{Path(path).parent.name}/{Path(path).name}" for path in predictions.paths],
            "labels": predictions.labels.int().tolist(),
            "scores": [float(f"{score:.9g}") for score in predictions.scores],  # all a float32 holds
            "decisions": [int(decision) for decision in model.evaluator.decisions],
            "threshold": image_threshold,
            "curves": curves,
        },
        maps=_gallery_maps(predictions, pixel_threshold),
    )


def build(spec: RunSpec) -> tuple[AnomalibModule, AnomalibDataModule, dict[str, Any]]:
    """Instantiate model, datamodule and trainer arguments as ``anomalib train --config`` would.

    Args:
        spec (RunSpec): What to run.

    Returns:
        tuple[AnomalibModule, AnomalibDataModule, dict[str, Any]]: The objects, and keyword arguments of the engine.
    """
    parser, config = parse(spec)
    objects = parser.instantiate_classes(config)
    use_local_weights(objects.model, spec.weights)
    # Only what somebody asked for, so that model and engine fill in the rest.
    return objects.model, objects.data, {name: objects.trainer[name] for name in TRAINER_DEFAULTS | spec.trainer}


def parse(spec: RunSpec) -> tuple[ArgumentParser, Namespace]:
    """Check the arguments of model, datamodule and trainer against their signatures.

    Args:
        spec (RunSpec): What to run.

    Returns:
        tuple[ArgumentParser, Namespace]: The parser, and what it made of the arguments.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(_find(spec.model, "anomalib.models"), "model", fail_untyped=False)
    parser.add_class_arguments(_find(spec.data, "anomalib.data"), "data", fail_untyped=False)
    parser.add_class_arguments(Trainer, "trainer", instantiate=False, fail_untyped=False)
    trainer = TRAINER_DEFAULTS | spec.trainer
    return parser, parser.parse_object({"model": spec.args, "data": spec.data_args, "trainer": trainer})


def use_local_weights(model: AnomalibModule, weights: dict[str, str]) -> None:
    """Load state dicts from files into submodules, in place of what the model would download.

    Args:
        model (AnomalibModule): Model to change.
        weights (dict[str, str]): Files by submodule, e.g. ``{"model.teacher": "teacher.pth"}``. A file of a backbone
            that was cut after some stage cuts the submodule there.

    Raises:
        ValueError: If a file is missing.
    """
    for target, name in weights.items():
        path = Path(name)
        if not path.is_file():
            msg = f"{type(model).__name__} shall take the weights of {target} from {path}, which does not exist."
            raise ValueError(msg)
        state = read_state_dict(path)
        module = model.get_submodule(target)
        _cut(module, state)
        module.load_state_dict(state)
        logger.info("%s: weights of %s from %s", type(model).__name__, target, path.name)
    if weights and hasattr(model, "prepare_pretrained_model"):
        # EfficientAd fetches its teacher when training starts; it has it already.
        model.prepare_pretrained_model = lambda: None


def _cut(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Cut the last stages that a truncated file does not hold, where their output would not be used anyway."""
    for name, stages in list(module.named_modules()):
        if isinstance(stages, nn.Sequential):
            prefix = f"{name}." if name else ""
            while len(stages) and not any(key.startswith(f"{prefix}{len(stages) - 1}.") for key in state):
                if next(stages[-1].parameters(), None) is None:
                    break
                del stages[-1]


def _find(class_path: str, home: str) -> type:
    """Import a class by its path, or by its name if it is anomalib's or registered there."""
    return pkgutil.resolve_name(class_path if "." in class_path else f"{home}.{class_path}")


def _images(datamodule: AnomalibDataModule, count: int, size: tuple[int, int]) -> torch.Tensor:
    """Take the first images of the test set, in [0, 1] and in the size the model sees."""
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
    """Bring maps to one scale for all images and models: 0 low normal, 0.5 the model's own threshold, 1 the highest."""
    if predictions.maps is None:
        return {}
    maps = predictions.maps
    side = [min(MAP_SIDE, length) for length in maps.shape[-2:]]
    low, high = torch.quantile(maps[:, ::8, ::8].flatten()[: 2**24], 0.05), maps.max()
    middle = high if threshold is None else torch.tensor(threshold).clamp(low, high)
    small = F.adaptive_max_pool2d(maps[:, None], side)[:, 0]  # keeps the peak of a thin defect
    eps = torch.finfo(maps.dtype).eps
    below = 0.5 * (small - low) / (middle - low).clamp(min=eps)
    above = 0.5 + 0.5 * (small - middle) / (high - middle).clamp(min=eps)
    scaled = torch.where(small > middle, above, below).clamp(0, 1)
    return {"maps": (scaled * 255).round().byte().numpy(), "files": predictions.paths, "masks": predictions.mask_paths}
