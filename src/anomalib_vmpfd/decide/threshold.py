# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A threshold that somebody chose, kept in a new checkpoint or in the metadata of an export."""

import json
from pathlib import Path
from typing import Any

from anomalib_vmpfd.engine.checkpoint_io import WholeCheckpointIO, read_whole
from anomalib_vmpfd.engine.rebuild import model_of
from anomalib_vmpfd.files import write_atomically

from .runtimes import Exported

CONFIG = "anomalib_post_processor_config"


def save_threshold(model: Path, threshold: float, output: Path | None = None) -> Path:
    """Write a checkpoint, or the ``metadata.json`` of an export, with another image threshold.

    Scores stay as they are. A checkpoint keeps the threshold as anomalib's ``image_sensitivity``, which predictions and
    exports heed. An export itself is not changed: its metadata say at which score an image is anomalous.

    Args:
        model (Path): Checkpoint of a model of this package, or a ``.onnx`` or ``.xml`` export; it stays as it is.
        threshold (float): Score from which on an image is anomalous, between 0 and 1.
        output (Path | None): The new file. Defaults to ``None``: ``<name>-threshold-<value>.ckpt``, or
            ``metadata-threshold-<value>.json``, beside the model.

    Returns:
        Path: The new file.

    Raises:
        ValueError: If the threshold is not between 0 and 1, or the checkpoint is of no model of this package.
        FileExistsError: If the new file is there.
    """
    if not 0 < threshold < 1:
        msg = f"The threshold must lie between 0 and 1, got {threshold:g}."
        raise ValueError(msg)
    exported = model.suffix in {".onnx", ".xml"}
    stem, suffix = ("metadata", ".json") if exported else (model.stem, ".ckpt")
    output = output or model.with_name(f"{stem}-threshold-{threshold:.4f}{suffix}")
    if output.exists():
        msg = f"{output} is there already and is left alone; move it away to write it anew."
        raise FileExistsError(msg)
    if exported:
        content = current_metadata(model, Exported(model).metadata)
        content["thresholds"] = {**content.get("thresholds", {}), "pred_score": threshold}
        write_atomically(output, (json.dumps(content, indent=2) + "\n").encode())
        return output
    if model_of(model) is None:
        msg = f"{model} was not saved by a model of this package; give one that was."
        raise ValueError(msg)
    checkpoint = read_whole(model)
    checkpoint[CONFIG] = {**checkpoint[CONFIG], "image_sensitivity": 1 - threshold}
    WholeCheckpointIO().save_checkpoint(checkpoint, output)
    return output


def current_metadata(export: Path, written: dict[str, Any]) -> dict[str, Any]:
    """The ``metadata.json`` beside an export, whose thresholds may be others; what is in the export without one.

    Args:
        export (Path): The export.
        written (dict[str, Any]): What the export says of itself.

    Returns:
        dict[str, Any]: The metadata.

    Raises:
        ValueError: If the file beside is of another export, or damaged.
    """
    beside = export.with_name("metadata.json")
    if not beside.is_file():
        return written
    try:
        content = json.loads(beside.read_text(encoding="utf-8"))
        same = {**content, "thresholds": None} == {**written, "thresholds": None}
    except (ValueError, TypeError):
        same = False
    if not same:
        msg = f"{beside} is damaged, or does not belong to {export.name}; move it away, or export again."
        raise ValueError(msg)
    return content
