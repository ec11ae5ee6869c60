# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Exports through anomalib's engine answer as the checkpoint does, in all of its inferencers and in any batch."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from anomalib.data.utils import read_image
from anomalib.deploy import OpenVINOInferencer, TorchInferencer
from anomalib.engine import Engine

from anomalib_vmpfd import SampleParts, VmpfdAd

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def trained(sample_root: Path, tmp_path_factory: pytest.TempPathFactory):
    """Engine, checkpoint, data and, by path, what ``Engine.predict`` says of the test images."""
    datamodule = SampleParts(root=sample_root, num_workers=0, val_split_mode="from_train", train_batch_size=16)
    # half the size of the images: the resize takes part
    model = VmpfdAd(
        image_size=(128, 128),
        encoder_args={"dim": 32},
        reconstruction="descriptors",
        density_args={"num_components": 128},
        visualizer=False,
    )
    folder = tmp_path_factory.mktemp("export")
    engine = Engine(
        accelerator="cpu", default_root_dir=folder, max_epochs=2, limit_val_batches=0, enable_progress_bar=False
    )
    engine.fit(model, datamodule=datamodule)
    predicted = {
        path: (anomaly_map.reshape(128, 128).numpy(), float(score), bool(label))
        for batch in engine.predict(model, datamodule=datamodule)
        for path, anomaly_map, score, label in zip(
            batch.image_path, batch.anomaly_map, batch.pred_score, batch.pred_label, strict=True
        )
    }
    assert {label for _, _, label in predicted.values()} == {False, True}
    return engine, model, datamodule, folder, predicted


def agree(seen, expected) -> None:
    """The map within a thousandth of its range and the same verdict."""
    anomaly_map, score, label = expected
    assert np.abs(np.asarray(seen.anomaly_map).reshape(128, 128) - anomaly_map).max() < 1e-3 * np.ptp(anomaly_map)
    assert float(np.squeeze(seen.pred_score)) == pytest.approx(score, abs=1e-3)
    assert bool(np.squeeze(seen.pred_label)) == label


def test_torch_inferencer(trained, monkeypatch):
    engine, model, _, folder, predicted = trained
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    inferencer = TorchInferencer(engine.export(model, "torch", folder), device="cpu")
    for path, expected in predicted.items():
        with torch.inference_mode():
            agree(inferencer.predict(path), expected)


def test_onnxruntime_and_openvino_inferencer_in_any_batch(trained, monkeypatch):
    engine, model, _, folder, predicted = trained
    monkeypatch.chdir(folder)  # for OpenVINO's cache
    path = engine.export(model, "onnx", folder)
    session = onnxruntime.InferenceSession(path)
    outputs = ["anomaly_map", "pred_score", "pred_label"]
    images = np.stack([read_image(path, as_tensor=True).numpy() for path in predicted])
    together = session.run(outputs, {session.get_inputs()[0].name: images})
    alone = session.run(outputs, {session.get_inputs()[0].name: images[:1]})
    for one, several in zip(alone, together, strict=True):
        np.testing.assert_allclose(one[0], several[0], atol=1e-5)

    inferencer = OpenVINOInferencer(
        engine.export(model, "openvino", folder), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    in_openvino = inferencer.model(images)
    for index, (path, expected) in enumerate(predicted.items()):
        agree(inferencer.predict(path), expected)
        for answers in (together, [in_openvino[name] for name in outputs]):
            anomaly_map, score, label = (answer[index] for answer in answers)
            agree(SimpleNamespace(anomaly_map=anomaly_map, pred_score=score, pred_label=label), expected)
