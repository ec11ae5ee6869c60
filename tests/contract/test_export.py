# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Exports of every model through anomalib's engine answer as the model does, in all of its inferencers."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from anomalib.data.utils import read_image
from anomalib.deploy import CompressionType, OpenVINOInferencer, TorchInferencer

OUTPUTS = ("anomaly_map", "pred_score", "pred_label")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """Folder for exports, files of test images, their pixels before any resize and what ``Engine.predict`` says."""
    files = next(iter(trained.data.test_dataloader())).image_path
    images = torch.stack([read_image(path, as_tensor=True) for path in files])
    assert min(images.shape[-2:]) > 64, "the resize takes part"
    expected = {name: value[: len(files)].numpy() for name, value in trained.predictions.items()}
    assert np.ptp(expected["pred_score"]) > 0
    return trained, tmp_path_factory.mktemp("export"), files, images, expected


def agree(answers, expected, index: slice = slice(None)) -> None:
    """The map within a thousandth of its range, and the same verdicts."""
    maps, scores, labels = (np.asarray(answer) for answer in answers)
    wanted = expected["anomaly_map"]
    assert np.abs(maps.reshape(wanted[index].shape) - wanted[index]).max() < 1e-3 * np.ptp(wanted)
    np.testing.assert_allclose(scores.ravel(), expected["pred_score"][index].ravel(), atol=1e-3)
    assert (labels.ravel() == expected["pred_label"][index].ravel()).all()


def agree_on_files(inferencer, files, expected) -> None:
    """An inferencer reads the first and the last of the files itself."""
    for index in (0, len(files) - 1):
        with torch.inference_mode():
            seen = inferencer.predict(files[index])
        agree([getattr(seen, name) for name in OUTPUTS], expected, slice(index, index + 1))


def test_torch(exported, monkeypatch):
    trained, folder, files, images, expected = exported
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    inferencer = TorchInferencer(trained.engine.export(trained.model, "torch", folder), device="cpu")
    with torch.inference_mode():
        seen = inferencer.model(images)
    agree([getattr(seen, name) for name in OUTPUTS], expected)
    agree_on_files(inferencer, files, expected)


def test_onnx_is_one_file_that_onnx_runtime_reads_in_any_batch(exported):
    trained, folder, _, images, expected = exported
    path = Path(trained.engine.export(trained.model, "onnx", folder / "alone"))
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    together = session.run(list(OUTPUTS), {name: images.numpy()})
    agree(together, expected)
    alone = [session.run(list(OUTPUTS), {name: image[None].numpy()}) for image in images]
    for several, ones in zip(together, zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(np.concatenate(ones), several, atol=1e-5)


def test_openvino_in_float32(exported, monkeypatch):
    trained, folder, files, images, expected = exported
    monkeypatch.chdir(folder)  # for OpenVINO's cache
    path = trained.engine.export(trained.model, "openvino", folder)
    inferencer = OpenVINOInferencer(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers = inferencer.model(images.numpy())
    agree([answers[name] for name in OUTPUTS], expected)
    agree_on_files(inferencer, files, expected)


@pytest.mark.parametrize("kind", ["int8_ptq", CompressionType.INT8])
def test_eight_bits_are_refused_by_name(exported, kind):
    trained, folder, *_ = exported
    with pytest.raises(ValueError, match=r"(?i)int8.*not supported"):
        trained.model.to_openvino(folder, compression_type=kind)
