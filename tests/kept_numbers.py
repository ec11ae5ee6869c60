# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What a runtime keeps of a module: exports must not hold large constants twice."""

from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import torch
from torch import Tensor, nn

RUNTIMES = ("onnxruntime", "openvino")


def kept_numbers(module: nn.Module, inputs: tuple[Tensor, ...], folder: Path, runtime: str) -> int:
    """Bytes that a runtime keeps of a module once it is loaded; its answers must be those of the module.

    Args:
        module (nn.Module): Of inputs whose first dimension is the batch, with one output.
        inputs (tuple[Tensor, ...]): Examples of them.
        folder (Path): Folder to write into.
        runtime (str): One of ``RUNTIMES``.

    Returns:
        int: Bytes of the file that the runtime writes of what it made of the export.
    """
    module, path = module.eval(), folder / "model.onnx"
    batch = torch.export.Dim("batch", min=1, max=64)
    options = {"opset_version": 18, "external_data": False, "dynamo": True, "verbose": False}
    torch.onnx.export(module, inputs, path, dynamic_shapes=tuple({0: batch} for _ in inputs), **options)
    given = [each.numpy() for each in inputs]
    if runtime == "openvino":
        loaded = folder / "loaded.xml"
        openvino.save_model(openvino.convert_model(path), loaded, compress_to_fp16=False)
        compiled = openvino.compile_model(loaded, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        (answers,) = compiled(given).values()
        kept = loaded.with_suffix(".bin")
    else:
        settings = onnxruntime.SessionOptions()
        settings.optimized_model_filepath = str(folder / "loaded.onnx")
        session = onnxruntime.InferenceSession(path, settings)
        (answers,) = session.run(
            None, {each.name: value for each, value in zip(session.get_inputs(), given, strict=True)}
        )
        kept = folder / "loaded.onnx"
    np.testing.assert_allclose(answers, module(*inputs).detach().numpy(), rtol=1e-4, atol=1e-5)
    return kept.stat().st_size
