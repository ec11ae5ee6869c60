# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Speed: a model of known cost."""

import time
from contextlib import nullcontext
from types import SimpleNamespace

import torch
from torch import nn

from anomalib_vmpfd.benchmark.run.speed import measure_speed
from anomalib_vmpfd.benchmark.suite import SpeedProtocol


class Known(nn.Module):
    """A convolution whose operations can be counted by hand, and a nap per image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.batches: list[int] = []

    def forward(self, images: torch.Tensor) -> SimpleNamespace:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.batches.append(len(images))
        time.sleep(0.01 * len(images))
        return SimpleNamespace(pred_score=self.conv(images).flatten(1).amax(1))


def test_known_cost_is_measured():
    model = Known().train()
    protocol = SpeedProtocol(warmup=2, repeats=4, batch_size=16, batch_repeats=2)
    speed = measure_speed(model, torch.rand(3, 3, 32, 32), torch.device("cpu"), nullcontext, protocol)
    assert speed["parameters"] == 3 * 8 * 9
    assert speed["flops"] == 2 * (3 * 8 * 9) * 32 * 32
    # a nap never ends early, but a busy machine may end it late
    assert 10 <= speed["latency_ms"] < 1000
    assert 1 < speed["throughput_ips"] <= 100
    assert model.batches == [1] + [1] * 6 + [16] * 3, "operations, warm-up and repeats, batches"
