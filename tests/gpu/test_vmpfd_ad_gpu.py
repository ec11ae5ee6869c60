# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Latency of VmpfdAd on a GPU; what every model does there is in ``tests/contract/test_gpu.py``."""

from contextlib import nullcontext

import pytest
import torch

from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.benchmark.run.speed import measure_speed
from anomalib_vmpfd.benchmark.suite import SpeedProtocol

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_an_image_takes_less_time_than_on_the_cpu():
    model = VmpfdAd(visualizer=False)
    images = torch.rand(16, 3, 256, 256)
    on_cpu, on_gpu = (
        measure_speed(model, images, torch.device(device), nullcontext, SpeedProtocol()) for device in ("cpu", "cuda")
    )
    assert on_gpu["latency_ms"] < on_cpu["latency_ms"]
    assert on_gpu["throughput_ips"] > 2 * on_cpu["throughput_ips"]
