# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What an export says of itself: in the file, and as ``metadata.json`` beside it."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from anomalib.models.components import AnomalibModule

from anomalib_vmpfd.files import write_atomically
from anomalib_vmpfd.version import __version__

from .rebuild import KEY


def metadata(module: AnomalibModule, input_size: tuple[int, int] | None) -> dict[str, Any]:
    """Describe an export.

    Args:
        module (AnomalibModule): The model that is exported.
        input_size (tuple[int, int] | None): Height and width of the images that the export takes; ``None`` for any.

    Returns:
        dict[str, Any]: Model, versions, arguments, sizes, thresholds, and licences of the pre-trained weights.
            ``thresholds.pred_score`` and ``.anomaly_map`` are those of the outputs, ``.image`` and ``.pixel`` those of
            the scores before they are normalised.
    """
    thresholds: dict[str, float | None] = {}
    if (post := module.post_processor) is not None:
        # not a number before a training, which JSON does not have
        learnt = {"image": post.image_threshold, "pixel": post.pixel_threshold}
        # a sensitivity moves them
        thresholds = {
            "pred_score": round(float(post.normalized_image_threshold), 7),
            "anomaly_map": round(float(post.normalized_pixel_threshold), 7),
        }
        thresholds |= {name: None if value.isnan() else value.item() for name, value in learnt.items()}
        thresholds |= {name: getattr(post, name) for name in ("image_fpr", "mask_fpr") if hasattr(post, name)}
    return {
        "model": type(module).__name__,
        "version": __version__,
        "anomalib": version("anomalib"),
        "arguments": dict(module.hparams),
        "image_size": module.input_size,
        "input_size": input_size,
        "input": "RGB in [0, 1], float32, (B, 3, H, W)",
        "thresholds": thresholds,
        "licences": module.licences,
    }


def write_into_onnx(path: Path, content: dict[str, Any]) -> None:
    """Write metadata into an ONNX file as the property ``anomalib_vmpfd``, and beside it.

    Args:
        path (Path): The ``.onnx`` file.
        content (dict[str, Any]): The metadata.
    """
    import onnx

    graph = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(graph, {KEY: json.dumps(content)})
    write_atomically(path, graph.SerializeToString())
    write_beside(path, content)


def write_beside(path: Path, content: dict[str, Any]) -> None:
    """Write metadata as ``metadata.json`` into the folder of an export."""
    write_atomically(path.with_name("metadata.json"), (json.dumps(content, indent=2) + "\n").encode())
