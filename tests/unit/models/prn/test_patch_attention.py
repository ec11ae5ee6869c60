# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Self-attention between patches is equation 3, head by head."""

import math

import pytest
import torch

from anomalib_vmpfd.models.prn.attention import PARTS, MultiSizeAttention, patch_attention

pytestmark = pytest.mark.numeric


def slow_attention(queries, keys, values, rows: int, columns: int):
    """Equation 3 with loops over images, patches and pixels of patches."""
    out = torch.zeros_like(values)
    height, width = values.shape[-2] // rows, values.shape[-1] // columns
    places = [
        (slice(i * height, (i + 1) * height), slice(j * width, (j + 1) * width))
        for i in range(rows)
        for j in range(columns)
    ]
    for image in range(len(values)):
        for here in places:
            q = queries[image][(slice(None), *here)].flatten()
            logits = [float(q @ keys[image][(slice(None), *there)].flatten()) / len(q) for there in places]
            shares = [math.exp(x - max(logits)) for x in logits]
            for share, there in zip(shares, places, strict=True):
                out[image][(slice(None), *here)] += share / sum(shares) * values[image][(slice(None), *there)]
    return out


@pytest.mark.parametrize(
    ("size", "parts", "rows", "columns"),
    [((8, 8), 1, 1, 1), ((8, 8), 4, 4, 4), ((8, 16), 8, 8, 8), ((12, 10), 8, 4, 2), ((4, 6), 8, 4, 2)],
)
def test_it_is_a_slow_transcription(size, parts, rows, columns):
    torch.manual_seed(0)
    queries, keys, values = 3 * torch.randn(3, 2, 3, *size)
    expected = slow_attention(queries, keys, values, rows, columns)
    torch.testing.assert_close(patch_attention(queries, keys, values, parts), expected, rtol=1e-4, atol=1e-5)


def test_the_largest_patch_is_alone_and_passes_its_values():
    queries, keys, values = torch.randn(3, 2, 3, 8, 8)
    torch.testing.assert_close(patch_attention(queries, keys, values, 1), values)


def test_every_size_of_patches_is_a_head_of_its_own():
    """What one patch of a head sees of another patch comes through that head's quarter of the channels."""
    torch.manual_seed(0)
    module = MultiSizeAttention(8).eval()
    seen = []
    module.block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    maps = torch.randn(1, 8, 16, 16)
    with torch.no_grad():
        module(maps)
        q, k, v = module.embed(maps).chunk(3, 1)
    for head, parts in enumerate(PARTS):
        part = slice(2 * head, 2 * head + 2)
        expected = maps[:, part] + slow_attention(q[:, part], k[:, part], v[:, part], parts, parts)
        torch.testing.assert_close(seen[0][:, part], expected, rtol=1e-4, atol=1e-5)


def test_gradients():
    torch.manual_seed(0)
    inputs = [torch.randn(1, 2, 4, 4).double().requires_grad_() for _ in range(3)]
    assert torch.autograd.gradcheck(lambda q, k, v: patch_attention(q, k, v, 2), inputs)
