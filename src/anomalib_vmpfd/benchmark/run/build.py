# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Build the model, the datamodule and the trainer arguments of a run."""

import logging
import pkgutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import timm
import torch
from anomalib.data import AnomalibDataModule
from anomalib.models import AnomalibModule
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import Trainer
from torch import nn

from anomalib_vmpfd.weights.loading import read_state_dict

from .spec import RunSpec

logger = logging.getLogger(__name__)

TRAINER_DEFAULTS = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def build(spec: RunSpec) -> tuple[AnomalibModule, AnomalibDataModule, dict[str, Any]]:
    """Instantiate model, datamodule and trainer arguments as ``anomalib train --config`` would.

    Args:
        spec (RunSpec): What to run. With ``weights``, timm downloads nothing, also for the models of anomalib whose
            encoder is always a pre-trained one.

    Returns:
        tuple[AnomalibModule, AnomalibDataModule, dict[str, Any]]: The objects, and keyword arguments of the engine.

    Raises:
        ValueError: If the model has a pre-trained network of timm that ``weights`` does not name.
    """
    parser, config = parse(spec)
    if spec.weights:
        with _without_download() as untrained:
            objects = parser.instantiate_classes(config)
        ids = {id(network) for network in untrained}  # metrics, which are modules too, have a == of their own
        names = {name for name, module in objects.model.named_modules() if id(module) in ids}
        if forgotten := sorted(names - set(spec.weights)):
            msg = f"{spec.model} would download {', '.join(forgotten)}; name a file for it in `weights`, too."
            raise ValueError(msg)
        use_local_weights(objects.model, spec.weights)
    else:
        objects = parser.instantiate_classes(config)
    # only the requested arguments, so that the defaults of model and engine apply to the others
    return objects.model, objects.data, {name: objects.trainer[name] for name in TRAINER_DEFAULTS | spec.trainer}


def parse(spec: RunSpec) -> tuple[ArgumentParser, Namespace]:
    """Check the arguments of model, datamodule and trainer against their signatures.

    Args:
        spec (RunSpec): What to run.

    Returns:
        tuple[ArgumentParser, Namespace]: The parser and the parsed arguments.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(_find(spec.model, "anomalib.models"), "model", fail_untyped=False)
    parser.add_class_arguments(_find(spec.data, "anomalib.data"), "data", fail_untyped=False)
    parser.add_class_arguments(Trainer, "trainer", instantiate=False, fail_untyped=False)
    trainer = TRAINER_DEFAULTS | spec.trainer
    return parser, parser.parse_object({"model": spec.args, "data": spec.data_args, "trainer": trainer})


def use_local_weights(model: AnomalibModule, weights: dict[str, str]) -> None:
    """Load state dicts from local files into submodules, in place of a download.

    Args:
        model (AnomalibModule): Model to change.
        weights (dict[str, str]): Files by submodule, e.g. ``{"model.teacher": "teacher.pth"}``. A truncated
            backbone file, without the last stages, truncates the submodule likewise. Of a file of more than the
            submodule, such as a classifier behind it, that is not used.

    Raises:
        ValueError: If a file is missing.
    """
    for target, name in weights.items():
        path = Path(name)
        if not path.is_file():
            msg = f"{type(model).__name__} expects the weights of {target} from {path}, which does not exist."
            raise ValueError(msg)
        state = read_state_dict(path)
        module = model.get_submodule(target)
        _cut(module, state)
        parts = {key.partition(".")[0] for key in module.state_dict()}
        module.load_state_dict({key: value for key, value in state.items() if key.partition(".")[0] in parts})
        logger.info("%s: weights of %s from %s", type(model).__name__, target, path.name)
    if weights and hasattr(model, "prepare_pretrained_model"):
        # EfficientAd would download its teacher at the start of the training
        model.prepare_pretrained_model = lambda: None


@contextmanager
def _without_download() -> Generator[list[nn.Module], None, None]:
    """Create networks of timm without pre-trained weights, and list those that were to have them."""
    create, untrained = timm.create_model, []

    def create_untrained(name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: ANN401
        network = create(name, pretrained=False, **kwargs)
        if pretrained:
            untrained.append(network)
        return network

    with patch.object(timm, "create_model", create_untrained):
        yield untrained


def _cut(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Remove the last stages, which a truncated file does not contain and whose output is not used."""
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
