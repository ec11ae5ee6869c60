# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""VmpfdAd on a GPU: training in every precision, on several GPUs, and its latency."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from anomalib.engine import Engine

from anomalib_vmpfd import SampleParts, VmpfdAd
from anomalib_vmpfd.benchmark.run.speed import measure_speed
from anomalib_vmpfd.benchmark.suite import SpeedProtocol

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
WORKER = Path(__file__).parents[1] / "integration" / "distributed_worker.py"


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_trains_in_every_precision_and_judges_on_the_cpu_as_on_the_gpu(sample_root, tmp_path, precision):
    if precision == "bf16-mixed" and not torch.cuda.is_bf16_supported():
        pytest.skip("this GPU has no bf16")
    datamodule = SampleParts(root=sample_root, train_batch_size=16, num_workers=0, val_split_mode="from_train")
    model = VmpfdAd(
        image_size=(128, 128),
        encoder_args={"depth": 1, "dim": 32},
        reconstruction="descriptors",
        density_args={"num_components": 256},
        visualizer=False,
    )
    engine = Engine(
        accelerator="gpu",
        devices=1,
        precision=precision,
        max_epochs=2,
        default_root_dir=tmp_path,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
    )
    engine.fit(model, datamodule=datamodule)
    metrics = engine.test(model, datamodule=datamodule, verbose=False)[0]
    assert metrics["image_AUROC"] > 0.85
    assert metrics["pixel_AUROC"] > 0.85

    images = next(iter(datamodule.test_dataloader())).image
    model.eval()
    with torch.inference_mode():
        on_gpu = model.cuda()(images.cuda()).anomaly_map.cpu()
        on_cpu = model.cpu()(images).anomaly_map
    # TF32 and the order of sums
    assert (on_gpu - on_cpu).abs().max() < 1e-2 * (on_cpu.max() - on_cpu.min())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_and_calibrate_as_one(sample_root, tmp_path):
    for devices in (1, 2):
        command = [sys.executable, str(WORKER), str(sample_root), str(tmp_path), str(devices), "gpu"]
        subprocess.run(command, check=True, env=dict(os.environ), timeout=600)
    first, second = (torch.load(tmp_path / f"state-2-{rank}.pt", map_location="cpu") for rank in range(2))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0, equal_nan=True)
    metrics = [json.loads((tmp_path / f"metrics-{name}.json").read_text()) for name in ("1-0", "2-0", "2-1")]
    for other in metrics[1:]:
        assert other == pytest.approx(metrics[0], abs=2e-2)


def test_an_image_takes_less_time_than_on_the_cpu():
    model = VmpfdAd(visualizer=False)
    images = torch.rand(16, 3, 256, 256)
    on_cpu, on_gpu = (
        measure_speed(model, images, torch.device(device), nullcontext, SpeedProtocol()) for device in ("cpu", "cuda")
    )
    assert on_gpu["latency_ms"] < on_cpu["latency_ms"]
    assert on_gpu["throughput_ips"] > 2 * on_cpu["throughput_ips"]
