# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints and exports as one function of an image, whatever runs them."""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from anomalib_vmpfd.engine.rebuild import KEY
from anomalib_vmpfd.registration import load_trained

Precision = Literal["f32", "bf16", "f16"]
# in which a verdict is that of the checkpoint; OpenVINO would choose bfloat16 where a processor has it
ASSURED: Precision = "f32"
OUTPUTS = ("pred_score", "pred_label", "anomaly_map")


class Answer(NamedTuple):
    """What a model says of one image.

    Attributes:
        score (float): ``pred_score``.
        label (bool): ``pred_label``.
        anomaly_map (np.ndarray): ``(H, W)``.
    """

    score: float
    label: bool
    anomaly_map: np.ndarray


class Exported:
    """An export in the runtime of its kind.

    Args:
        path (Path): A ``.onnx`` file, run by ONNX Runtime, or the ``.xml`` file of OpenVINO.
        precision (str | None): What to compute in: ``None`` leaves it to the runtime. For OpenVINO it is a hint, which
            a processor without it does not follow. ONNX Runtime has float32 only; ``"bf16"`` and ``"f16"`` round every
            result, as a runtime that computes in them does.

    Attributes:
        runtime (str): Name and version of the runtime.
        precision (str): What it computes in.
        image_size (tuple[int, int] | None): Height and width in pixels that the model resizes images to, where the
            export says it.
        metadata (dict[str, Any]): What the export says of itself.
        reads_deep (bool): Whether it sees images of 16 bits through a window.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another kind, or has other outputs than an export of anomalib.
    """

    def __init__(self, path: Path, precision: Precision | None = None) -> None:
        if not path.is_file():
            msg = f"There is no export {path}; write one with `anomalib export`."
            raise FileNotFoundError(msg)
        if path.suffix == ".onnx":
            import onnxruntime

            self.runtime = f"ONNX Runtime {onnxruntime.__version__}"
            if precision is None or precision == "f32":
                self.precision, session = "f32", onnxruntime.InferenceSession(path)
            else:
                # it needs onnx, which those who only judge tiles or run OpenVINO may lack
                from .low_precision import in_low_precision

                self.precision, session = f"{precision}, rounded", in_low_precision(path, precision)
            names = [output.name for output in session.get_outputs()]
            feed = session.get_inputs()[0].name
            written = session.get_modelmeta().custom_metadata_map.get(KEY, "{}")
            self._run = lambda images: dict(zip(names, session.run(names, {feed: images}), strict=True))
        elif path.suffix == ".xml":
            import openvino

            core = openvino.Core()
            network = core.read_model(path)
            written = network.get_rt_info([KEY]).astype(str) if network.has_rt_info([KEY]) else "{}"
            config = {} if precision is None else {"INFERENCE_PRECISION_HINT": precision}
            compiled = core.compile_model(network, "CPU", config)
            self.runtime = f"OpenVINO {openvino.__version__.split('-', 1)[0]}"
            self.precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            names = [output.any_name for output in compiled.outputs]
            self._run = lambda images: dict(zip(names, compiled(images).values(), strict=True))
        else:
            msg = f"{path} is neither the .onnx file nor the .xml file of an export."
            raise ValueError(msg)
        self.metadata: dict[str, Any] = json.loads(written)
        self.image_size: tuple[int, int] | None = self.metadata.get("image_size")
        self.reads_deep = self.metadata.get("arguments", {}).get("window") is not None
        if missing := sorted(set(OUTPUTS) - set(names)):
            msg = f"{path} has no output {', '.join(missing)}; export it again with its thresholds and its map."
            raise ValueError(msg)

    def answers(self, images: np.ndarray) -> list[Answer]:
        """Answer to images in [0, 1], float32, ``(B, 3, H, W)``, together."""
        seen = self._run(images)
        maps = seen["anomaly_map"].reshape(len(images), *seen["anomaly_map"].shape[-2:])
        scores, labels = seen["pred_score"].ravel(), seen["pred_label"].ravel()
        return [
            Answer(float(score), bool(label), each) for score, label, each in zip(scores, labels, maps, strict=True)
        ]

    def __call__(self, image: np.ndarray) -> Answer:
        """Answer to an image in [0, 1], float32, ``(3, H, W)``."""
        return self.answers(image[None])[0]


class Checkpoint:
    """A checkpoint in PyTorch.

    Args:
        path (Path): The checkpoint.

    Attributes:
        model (AnomalibModule): The model.
        image_size (tuple[int, int] | None): Height and width in pixels that it resizes images to.
        reads_deep (bool): Whether it sees images of 16 bits through a window.

    Raises:
        ValueError: If it is of no model of this package.
    """

    def __init__(self, path: Path) -> None:
        self.model = load_trained(path)
        self.image_size: tuple[int, int] | None = self.model.input_size
        self.reads_deep = getattr(self.model.pre_processor, "reads_deep", False)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Answer:
        """Answer to an image in [0, 1], float32, ``(3, H, W)``."""
        seen = self.model(torch.from_numpy(image)[None])
        return Answer(seen.pred_score.item(), bool(seen.pred_label.item()), seen.anomaly_map[0].squeeze(0).numpy())
