# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What an export says of itself and of how it answers, apart from any real export."""

import json
import logging
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from anomalib.data import InferenceBatch
from onnx import TensorProto, helper, numpy_helper
from openvino import opset13
from torch import nn

import tiny
from anomalib_vmpfd.engine.export_metadata import metadata, write_into_onnx
from anomalib_vmpfd.engine.export_openvino import finish_openvino
from anomalib_vmpfd.engine.export_verification import verify_onnx


class Constant(nn.Module):
    """A model that gives every image the same score."""

    input_size = (8, 8)
    device = torch.device("cpu")

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        assert images.shape == (1, 3, 10, 10), "larger than the model's images, so that a resize takes part"
        return InferenceBatch(pred_score=torch.tensor([0.4]), anomaly_map=torch.full((1, 1, 2, 2), 0.4))


def export(path, score: float):
    """An ONNX file that gives every image one score."""
    values = {"pred_score": np.full(1, score, np.float32), "anomaly_map": np.full((1, 1, 2, 2), score, np.float32)}
    nodes = [helper.make_node("Constant", [], [n], value=numpy_helper.from_array(v)) for n, v in values.items()]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in values.items()]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, None, None])
    graph = helper.make_graph(nodes, "constant", [image], outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.mark.parametrize(
    ("score", "level"), [(0.4001, logging.INFO), (0.5, logging.WARNING), (np.nan, logging.WARNING)]
)
def test_an_export_that_answers_otherwise_is_a_warning(score, level, tmp_path, caplog):
    path = export(tmp_path / "model.onnx", score)
    with caplog.at_level(logging.INFO):
        verify_onnx(Constant(), path, None)
    (record,) = caplog.records
    assert record.levelno == level
    assert str(path) in record.getMessage()


def test_metadata_of_a_model(tmp_path):
    model = tiny.model(image_size=(64, 96), image_fpr=0.1)
    content = metadata(model, (480, 640))
    path = export(tmp_path / "model.onnx", 0.5)
    write_into_onnx(path, content)
    seen = json.loads((tmp_path / "metadata.json").read_text(encoding="utf-8"))
    assert (seen["image_size"], seen["input_size"]) == ([64, 96], [480, 640])
    assert (seen["thresholds"]["image_fpr"], seen["thresholds"]["image"]) == (0.1, None)
    assert seen["licences"] == {"timm/tf_efficientnet_lite2": "Apache-2.0"}
    assert seen["arguments"]["density_args"] == {"num_components": 32}
    onnx.checker.check_model(path)


def test_no_graph_is_left_beside_the_weights_of_another(tmp_path, monkeypatch):
    """Weights are replaced first; whoever is stopped then must not find a file that answers anything."""
    images = opset13.parameter([-1, 3, 8, 8], np.float32, name="input")
    means = opset13.reduce_mean(images, opset13.constant([1, 2, 3]))
    means.output(0).set_names({"pred_score"})
    path = tmp_path / "model.xml"
    openvino.save_model(openvino.Model([means], [images]), path)
    replace = Path.replace

    def stopped(self, target):
        if self.suffix == ".xml":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        finish_openvino(path, {})
    assert not path.exists()
