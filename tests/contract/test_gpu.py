# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Every model on a GPU: it trains there in every precision, and judges on the CPU as it does there."""

import pytest
import torch
from trainings import scores

import tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_trains_in_every_precision_and_judges_on_the_cpu_as_on_the_gpu(entry, parts, tmp_path, precision):
    model, data = entry.build(), parts()
    runner = tiny.engine(tmp_path, accelerator="gpu", devices=1, precision=precision)
    runner.fit(model, datamodule=data)
    metrics = runner.test(model, datamodule=data, verbose=False)[0]
    # float16 leaves out steps until its scale fits, and these trainings have few
    assert precision == "16-mixed" or metrics["image_AUROC"] >= entry.image_auroc - 0.1

    images = next(iter(data.test_dataloader())).image
    model.eval()
    with torch.inference_mode():
        on_gpu, on_cpu = model.cuda()(images.cuda()), model.cpu()(images)
    spread = on_cpu.anomaly_map.max() - on_cpu.anomaly_map.min()
    assert (on_gpu.anomaly_map.cpu() - on_cpu.anomaly_map).abs().max() < 1e-4 * spread
    assert torch.equal(on_gpu.pred_label.cpu(), on_cpu.pred_label)


def test_a_checkpoint_of_a_gpu_is_the_same_model_on_the_cpu(entry, few, tmp_path):
    model, data = entry.build(), few()
    runner = tiny.engine(tmp_path, accelerator="gpu", devices=1)
    runner.fit(model, datamodule=data)
    expected, _ = scores(model.cpu(), data)
    loaded = entry.type.load_from_checkpoint(runner.trainer.checkpoint_callback.best_model_path, map_location="cpu")
    torch.testing.assert_close(scores(loaded, data)[0], expected)
