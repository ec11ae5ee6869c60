# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints that describe themselves: a model becomes what the checkpoint was, whatever its defaults are."""

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule

from anomalib_vmpfd.version import __version__

from .checkpoint_io import read_whole

logger = logging.getLogger(__name__)

KEY = "anomalib_vmpfd"
# memory for a training is no property of a model, and a training may go on for longer
NEVER_IN_CONFLICT = ("cache_mb", "epochs")
COMPONENTS = ("pre_processor", "post_processor", "evaluator", "visualizer")


def describe(module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Write into a checkpoint which model it is of.

    Args:
        module (LightningModule): The model.
        checkpoint (dict[str, Any]): The checkpoint that is being saved.
    """
    checkpoint[KEY] = {"model": type(module).__name__, "version": __version__}


def model_of(path: Path) -> str | None:
    """Name of the model that a checkpoint is of, read without running code.

    Args:
        path (Path): The checkpoint.

    Returns:
        str | None: The name; ``None`` where the checkpoint was not saved by a model of this package.

    Raises:
        CheckpointError: If the file cannot be read as a checkpoint.
    """
    return read_whole(path).get(KEY, {}).get("model")


def rebuild(module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Turn a model, in place, into the one that a checkpoint was saved from.

    Arguments that were left at their defaults become those of the checkpoint. A model keeps its arguments as attributes
    of the same names, or in ``module.model`` alone.

    Args:
        module (LightningModule): A model built with any arguments.
        checkpoint (dict[str, Any]): The checkpoint that is being loaded.

    Raises:
        ValueError: If the checkpoint is of another model, or contradicts an argument that was given.
    """
    saved_by = checkpoint.get(KEY, {})
    name = type(module).__name__
    if saved_by.get("model", name) != name:
        msg = f"The checkpoint is of {saved_by['model']}, not of {name}; give --model {saved_by['model']}."
        raise ValueError(msg)
    stored = checkpoint.get("hyper_parameters", {})
    parameters = inspect.signature(type(module).__init__).parameters
    if unknown := sorted(set(stored) - set(parameters)):
        msg = (
            f"The checkpoint was saved by version {saved_by.get('version', 'unknown')}, whose {name} had other "
            f"arguments ({', '.join(unknown)}); train again, or use that version."
        )
        raise ValueError(msg)
    given = dict(module.hparams)
    left_out = {key for key, value in given.items() if _plain(value) == _plain(parameters[key].default)}
    refuse_contradictions({key: value for key, value in given.items() if key not in left_out}, checkpoint)
    adopted = {k: v for k, v in stored.items() if k in left_out and _plain(given[k]) != _plain(v)}
    if not adopted:
        return
    logger.info(f"{name} takes from its checkpoint: {', '.join(f'{k}={_plain(v)}' for k, v in adopted.items())}.")
    adopt(module, adopted)


def adopt(module: LightningModule, arguments: Mapping[str, Any]) -> None:
    """Give a model other arguments, in place; what it has learnt is lost.

    Args:
        module (LightningModule): The model.
        arguments (Mapping[str, Any]): Arguments that change.
    """
    parameters = inspect.signature(type(module).__init__).parameters
    # a component of its own is restored by anomalib, and not every model takes one
    without = {name: False for name in COMPONENTS if name in parameters}
    twin = type(module)(**{**module.hparams, **arguments, **without})
    module.model = twin.model.to(module.device)
    for key in (parameters.keys() & vars(twin).keys()) - set(COMPONENTS):
        setattr(module, key, getattr(twin, key))
    module.hparams.update(arguments)


def refuse_contradictions(given: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> None:
    """Refuse arguments with other values than a model was trained with.

    Args:
        given (Mapping[str, Any]): Arguments of a model, by name.
        checkpoint (Mapping[str, Any]): The checkpoint that is being loaded.

    Raises:
        ValueError: If there are any; names both values.
    """
    stored = checkpoint.get("hyper_parameters", {})
    conflicts = [
        f"{key}={_plain(value)} was given, the checkpoint was trained with {_plain(stored[key])}"
        for key, value in given.items()
        if key in stored and key not in NEVER_IN_CONFLICT and _plain(value) != _plain(stored[key])
    ]
    if conflicts:
        msg = (
            f"Arguments contradict the checkpoint: {'; '.join(conflicts)}. Leave them out, or train again with them"
            "; `anomalib-vmpfd calibrate` gives a checkpoint other rates."
        )
        raise ValueError(msg)


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Tuples and lists alike, as YAML knows no tuples; no arguments for a part are none."""
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()} or None
    return value
