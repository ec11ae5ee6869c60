# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The convolution that decoders are built of."""

from torch import nn


def convolution(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    """Convolution of 3 x 3 with batch norm and ReLU, from ``channels`` to ``width`` channels."""
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
