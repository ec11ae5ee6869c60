# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Latency, throughput, operations and size of a trained model.

Protocol: the whole module (pre-processor, model, post-processor) as it is exported; images of the test set at the input
size of the model, float32 on the host; transfers to the device and back are included; the median over the repeats,
after a warm-up. Precision is the trainer's.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median

import torch
from anomalib.models import AnomalibModule
from torch.utils.flop_counter import FlopCounterMode

from anomalib_vmpfd.benchmark.suite import SpeedProtocol

MEGABYTE = 1e6


def measure_speed(
    model: AnomalibModule,
    images: torch.Tensor,
    device: torch.device,
    precision: Callable[[], AbstractContextManager],
    protocol: SpeedProtocol,
) -> dict[str, float]:
    """Measure a trained model.

    Args:
        model (AnomalibModule): The model.
        images (torch.Tensor): One or more images on the host in [0, 1], shape ``(N, 3, H, W)``.
        device (torch.device): Where the model runs.
        precision (Callable[[], AbstractContextManager]): Creates the trainer's autocast context, entered in each pass.
        protocol (SpeedProtocol): Warm-up, repeats and batch size.

    Returns:
        dict[str, float]: ``latency_ms``, ``throughput_ips``, ``parameters`` and ``flops`` (a multiply-add is two;
            matrix products, convolutions and attention are counted, as torch's counter does).
    """
    model = model.to(device).eval()
    batch = images.repeat(-(-protocol.batch_size // len(images)), 1, 1, 1)[: protocol.batch_size].contiguous()

    def seconds(inputs: torch.Tensor, warmup: int, repeats: int) -> float:
        times = []
        for _ in range(warmup + repeats):
            start = time.perf_counter()
            with precision():
                score = model(inputs.to(device)).pred_score
            score.cpu()  # waits for the device
            times.append(time.perf_counter() - start)
        return median(times[warmup:])

    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter, precision():
            model(images[:1].to(device))
        latency = seconds(images[:1], protocol.warmup, protocol.repeats)
        per_batch = seconds(batch, 1, protocol.batch_repeats)
    return {
        "latency_ms": latency * 1000,
        "throughput_ips": len(batch) / per_batch,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "flops": counter.get_total_flops(),
    }


def peak_memory_mb(device: torch.device) -> float | None:
    """Return the peak memory of this process so far, on the device or, for the CPU, as resident set.

    Args:
        device (torch.device): Where the model runs.

    Returns:
        float | None: Megabytes (1e6 bytes), or ``None`` where the system does not report it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEGABYTE
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / MEGABYTE


def checkpoint_mb(path: Path) -> float:
    """Return the size of a checkpoint file.

    Args:
        path (Path): The file.

    Returns:
        float: Megabytes (1e6 bytes).
    """
    return path.stat().st_size / MEGABYTE
