# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Fusion is equation 2: every scale is the sum of all scales, transformed as the paper says."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.models.prn.fusion import MultiScaleFusion

pytestmark = pytest.mark.numeric
CHANNELS, SIDES = (2, 3, 4), (16, 8, 4)


@pytest.fixture
def scales():
    torch.manual_seed(0)
    return [torch.randn(2, c, side, 2 * side) for c, side in zip(CHANNELS, SIDES, strict=True)]


@pytest.fixture
def fusion():
    torch.manual_seed(1)
    return MultiScaleFusion(CHANNELS)


def convolved(channel: torch.Tensor, kernel: torch.Tensor, stride: int) -> torch.Tensor:
    """One channel (h, w) by one kernel, cell by cell."""
    pad = stride // 2
    padded = F.pad(channel, (pad,) * 4)
    height, width = (side // stride for side in channel.shape)
    side = stride + 1
    out = torch.zeros(height, width)
    for i in range(height):
        for j in range(width):
            out[i, j] = (padded[i * stride : i * stride + side, j * stride : j * stride + side] * kernel).sum()
    return out


def test_it_is_a_slow_transcription(fusion, scales):
    for j, fused in enumerate(fusion(scales)):
        expected = torch.zeros_like(fused)
        for r, scale in enumerate(scales):
            f = fusion.to_scale[j][r]
            if r == j:
                expected += scale
            elif r < j:
                depthwise, pointwise = f
                assert depthwise.kernel_size == (2 ** (j - r) + 1,) * 2
                for image in range(2):
                    down = [
                        convolved(scale[image, c], depthwise.weight[c, 0], 2 ** (j - r)) + depthwise.bias[c]
                        for c in range(CHANNELS[r])
                    ]
                    expected[image] += pointwise(torch.stack(down)[None])[0]
            else:
                # bilinear first and 1 x 1 after, as the paper has it
                up = F.interpolate(scale, scale_factor=2 ** (r - j), mode="bilinear", align_corners=False)
                expected += f(up)
        torch.testing.assert_close(fused, expected, rtol=1e-4, atol=1e-5)


def test_gradients(fusion):
    scales = [
        torch.randn(1, c, side // 2, side // 2).double().requires_grad_()
        for c, side in zip(CHANNELS, SIDES, strict=True)
    ]
    assert torch.autograd.gradcheck(lambda *each: tuple(fusion.double()(each)), scales)
