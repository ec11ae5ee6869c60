# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What a runtime keeps of a module: exports must not hold large constants twice."""

from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import torch
from torch import Tensor, nn


def kept_numbers(module: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> dict[str, int]:
    """Bytes that runtimes keep of a module once it is loaded; their answers must be those of the module.

    Args:
        module (nn.Module): Of inputs whose first dimension is the batch, with one output.
        inputs (tuple[Tensor, ...]): Examples of them.
        folder (Path): Folder to write into.

    Returns:
        dict[str, int]: Bytes of the file that each runtime writes of what it made of the export.
    """
    module, path = module.eval(), folder / "model.onnx"
    batch = torch.export.Dim("batch", min=1, max=64)
    options = {"opset_version": 18, "external_data": False, "dynamo": True, "verbose": False}
    torch.onnx.export(module, inputs, path, dynamic_shapes=tuple({0: batch} for _ in inputs), **options)
    given = [each.numpy() for each in inputs]

    settings, optimised = onnxruntime.SessionOptions(), folder / "loaded.onnx"
    settings.optimized_model_filepath = str(optimised)
    session = onnxruntime.InferenceSession(path, settings)
    names = [each.name for each in session.get_inputs()]
    converted = folder / "loaded.xml"
    openvino.save_model(openvino.convert_model(path), converted, compress_to_fp16=False)
    compiled = openvino.compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    expected = module(*inputs).detach().numpy()
    for (answers,) in (session.run(None, dict(zip(names, given, strict=True))), compiled(given).values()):
        np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-5)
    return {"ONNX Runtime": optimised.stat().st_size, "OpenVINO": converted.with_suffix(".bin").stat().st_size}
