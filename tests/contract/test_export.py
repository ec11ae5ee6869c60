# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Exports of every model through anomalib's engine answer as the model does."""

from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from anomalib.deploy import CompressionType, TorchInferencer

OUTPUTS = ("anomaly_map", "pred_score", "pred_label")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """Folder for exports, test images of their own size and what the model says of them."""
    images = next(iter(trained.data.test_dataloader())).image
    with torch.inference_mode():
        expected = trained.model.eval()(images)
    return trained, tmp_path_factory.mktemp("export"), images, expected


def agree(answers, expected) -> None:
    """The map within a thousandth of its range, and the same verdicts."""
    maps, scores, labels = (np.asarray(answer) for answer in answers)
    wanted = expected.anomaly_map.numpy()
    assert np.abs(maps.reshape(wanted.shape) - wanted).max() < 1e-3 * np.ptp(wanted)
    np.testing.assert_allclose(scores.ravel(), expected.pred_score.ravel(), atol=1e-3)
    assert (labels.ravel() == expected.pred_label.numpy().ravel()).all()


def test_torch(exported, monkeypatch):
    trained, folder, images, expected = exported
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    inferencer = TorchInferencer(trained.engine.export(trained.model, "torch", folder), device="cpu")
    with torch.inference_mode():
        seen = inferencer.model(images)
    agree([getattr(seen, name) for name in OUTPUTS], expected)


def test_onnx_runtime_in_any_batch(exported):
    trained, folder, images, expected = exported
    session = onnxruntime.InferenceSession(trained.engine.export(trained.model, "onnx", folder))
    name = session.get_inputs()[0].name
    agree(session.run(list(OUTPUTS), {name: images.numpy()}), expected)
    alone = [session.run(list(OUTPUTS), {name: image[None].numpy()}) for image in images]
    agree([np.concatenate(answers) for answers in zip(*alone, strict=True)], expected)


def test_openvino_in_float32(exported):
    trained, folder, images, expected = exported
    core = openvino.Core()
    model = core.compile_model(
        trained.engine.export(trained.model, "openvino", folder), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    answers = model(images.numpy())
    agree([answers[name] for name in OUTPUTS], expected)


def test_onnx_is_one_file(exported):
    trained, folder, _, _ = exported
    path = trained.engine.export(trained.model, "onnx", folder / "alone")
    assert [file.name for file in Path(path).parent.iterdir()] == [Path(path).name]


@pytest.mark.parametrize("kind", ["int8_ptq", CompressionType.INT8])
def test_eight_bits_are_refused_by_name(exported, kind):
    trained, folder, _, _ = exported
    with pytest.raises(ValueError, match=r"(?i)int8.*not supported"):
        trained.model.to_openvino(folder, compression_type=kind)
