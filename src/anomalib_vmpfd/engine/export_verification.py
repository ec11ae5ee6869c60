# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Whether an export answers as the model does, on one image and on this processor, right after it was written."""

import logging
from pathlib import Path

import numpy as np
import torch
from anomalib.models.components import AnomalibModule
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3  # of a score or a map, both in [0, 1]
PROBE_SCALE = 1.25  # larger than the model's images, so that a resize takes part


def verify_onnx(module: AnomalibModule, path: Path, input_size: tuple[int, int] | None) -> None:
    """Log in one line how an ONNX file answers in ONNX Runtime, compared with the model.

    Args:
        module (AnomalibModule): The model.
        path (Path): The ``.onnx`` file.
        input_size (tuple[int, int] | None): Height and width of the images that it takes; ``None`` for any.
    """
    try:
        import onnxruntime
    except ImportError:
        logger.info(f"{path}: not verified, as onnxruntime is not installed.")
        return
    session = onnxruntime.InferenceSession(path)
    images = _probe(module, input_size)
    names = [output.name for output in session.get_outputs()]
    answers = dict(zip(names, session.run(names, {session.get_inputs()[0].name: images.numpy()}), strict=True))
    _log(path, "ONNX Runtime in float32", module, images, answers)


def verify_openvino(module: AnomalibModule, path: Path, input_size: tuple[int, int] | None) -> None:
    """Log in one line how an OpenVINO file answers by OpenVINO's defaults, compared with the model.

    Args:
        module (AnomalibModule): The model.
        path (Path): The ``.xml`` file.
        input_size (tuple[int, int] | None): Height and width of the images that it takes; ``None`` for any.
    """
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU")
    images = _probe(module, input_size)
    seen = compiled(images.numpy())
    answers = {output.any_name: seen[output] for output in compiled.outputs}
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    cure = ' Compile it with {"INFERENCE_PRECISION_HINT": "f32"} wherever a processor has bfloat16.'
    _log(path, f"OpenVINO in {precision}, its choice for this processor", module, images, answers, cure)


def _probe(module: AnomalibModule, input_size: tuple[int, int] | None) -> Tensor:
    """One smooth picture, always the same, ``(1, 3, H, W)``."""
    size = input_size or [round(PROBE_SCALE * side) for side in module.input_size or (256, 256)]
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, tuple(size), mode="bilinear")


@torch.inference_mode()
def _log(
    path: Path, runtime: str, module: AnomalibModule, images: Tensor, answers: dict[str, np.ndarray], cure: str = ""
) -> None:
    expected = module.eval()(images.to(module.device))
    differences = {
        name: float(np.abs(answers[name].ravel() - value.float().cpu().numpy().ravel()).max())
        for name in ("pred_score", "anomaly_map")
        if (value := getattr(expected, name)) is not None
    }
    line = f"{path}: verified with {runtime}; on one image " + " and ".join(
        f"{name} differs from PyTorch's by {value:.1g}" for name, value in differences.items()
    )
    if not all(value <= TOLERANCE for value in differences.values()):
        logger.warning(f"{line}.{cure} Compare verdicts on your parts: anomalib-vmpfd check-export.")
    else:
        logger.info(f"{line}.{cure}")
