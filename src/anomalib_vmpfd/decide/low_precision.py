# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What a runtime that computes in 16 bits makes of an ONNX graph, on any processor."""

from pathlib import Path
from typing import Literal

import onnx
import onnxruntime
from onnx import TensorProto, helper

# operations after the last of which OpenVINO stays in float32, whatever it was told
HEAVY = {"Conv", "MatMul", "Gemm"}


def in_low_precision(path: Path, precision: Literal["bf16", "f16"]) -> onnxruntime.InferenceSession:
    """Open an ONNX file so that every float result and every weight of a product is rounded, but for the graph's end.

    OpenVINO computes in this way where a processor has bfloat16 and no float32 is asked for
    (``Graph::EnforceInferencePrecision`` of its CPU plugin); sums inside an operation are float32 there as here.

    Args:
        path (Path): The ``.onnx`` file.
        precision (str): ``"bf16"`` or ``"f16"``.

    Returns:
        onnxruntime.InferenceSession: The session, slower than one of the file itself.
    """
    kind = {"bf16": TensorProto.BFLOAT16, "f16": TensorProto.FLOAT16}[precision]
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    graph = model.graph
    known = [*graph.value_info, *graph.input, *graph.output]
    floats = {value.name for value in known if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    weights = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    outputs = [value.name for value in graph.output]
    end = _end(graph, outputs)
    names: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []

    def rounded(name: str) -> None:
        if name not in names:
            names[name] = f"{name}_rounded"
            nodes.append(helper.make_node("Cast", [name], [f"{name}_low"], to=kind))
            nodes.append(helper.make_node("Cast", [f"{name}_low"], [names[name]], to=TensorProto.FLOAT))

    for value in graph.input:
        rounded(value.name)
    for node in list(graph.node):
        heavy, low = node.op_type in HEAVY, node.output[0] not in end
        for index, name in enumerate(node.input):
            if heavy and name in weights:
                rounded(name)
            node.input[index] = names.get(name, name)
        nodes.append(node)
        for name in node.output:
            if low and name in floats and name not in outputs:
                rounded(name)
    del graph.node[:]
    graph.node.extend(nodes)
    options = onnxruntime.SessionOptions()
    # or the casts would be taken for superfluous
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def _end(graph: onnx.GraphProto, outputs: list[str]) -> set[str]:
    """Results from which an output is reached without another heavy operation."""
    makers = {name: node for node in graph.node for name in node.output}
    end: set[str] = set()
    waiting = list(outputs)
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.op_type in HEAVY or node.output[0] in end:
            continue
        end.update(node.output)
        waiting += node.input
    return end
