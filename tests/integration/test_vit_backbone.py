# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""VmpfdAd on a ViT from a local file: it finds defects, and neither checkpoint nor export needs the file again."""

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from safetensors.torch import save_file

import tiny
from anomalib_vmpfd import VmpfdAd


def test_it_trains_and_comes_back_from_checkpoint_and_export(tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "vit.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), weights)
    data = tiny.data(tiny.with_defects(tmp_path / "data"))
    model = VmpfdAd(
        image_size=(64, 64),
        descriptor="timm/test_vit",
        descriptor_args={"layers": ["blocks.0", "blocks.1"], "weights": str(weights)},
        density_args={"num_components": 32},
        visualizer=False,
    )
    engine = tiny.engine(tmp_path, max_epochs=1)
    engine.fit(model, datamodule=data)
    weights.unlink()
    loaded = VmpfdAd.load_from_checkpoint(engine.trainer.checkpoint_callback.best_model_path)
    (metrics,) = tiny.engine(tmp_path / "test").test(loaded, datamodule=data)
    assert metrics["image_AUROC"] == pytest.approx(1), "squares as these show in random features too"

    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = loaded.eval()(images).anomaly_map
    session = onnxruntime.InferenceSession(engine.export(loaded, "onnx", tmp_path))
    (seen,) = session.run(["anomaly_map"], {session.get_inputs()[0].name: images.numpy()})
    assert np.abs(seen.reshape(expected.shape) - expected.numpy()).max() < 1e-3 * np.ptp(expected.numpy())
