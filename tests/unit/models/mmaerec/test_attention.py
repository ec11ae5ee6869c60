# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Coordinate attention against its definition; every choice keeps the shape."""

import numpy as np
import pytest
import torch
from torch import nn

from anomalib_vmpfd.models.mmaerec.attention import ATTENTIONS


def test_coordinate_attention_is_that_of_its_paper():
    """Hou et al., CVPR 2021, equations 4 to 8, in NumPy; batch norm in evaluation, without bias."""
    torch.manual_seed(0)
    attention = ATTENTIONS["coordinate"](16).eval()
    attention.bn1.running_mean.uniform_(-0.2, 0.2)
    attention.bn1.running_var.uniform_(0.5, 1.5)
    x = torch.randn(2, 16, 5, 7)
    with torch.no_grad():
        seen = attention(x).numpy()

    def product(layer: nn.Conv2d, values: np.ndarray) -> np.ndarray:
        return np.einsum("oc,bcl->bol", layer.weight.detach().numpy()[:, :, 0, 0], values)

    def sigmoid(values: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-values))

    values = x.numpy()
    f = product(attention.conv1, np.concatenate([values.mean(3), values.mean(2)], axis=2))  # equation 6
    norm = attention.bn1
    mean, var, scale, shift = (
        each.detach().numpy()[None, :, None] for each in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    f = (f - mean) / np.sqrt(var + norm.eps) * scale + shift
    f = f * np.clip(f + 3, 0, 6) / 6  # hard swish
    along_h = sigmoid(product(attention.conv_h, f[:, :, :5]))  # equation 7
    along_w = sigmoid(product(attention.conv_w, f[:, :, 5:]))
    np.testing.assert_allclose(seen, values * along_h[:, :, :, None] * along_w[:, :, None, :], atol=1e-5)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_the_shape_stays_and_only_none_changes_nothing(name):
    x = torch.randn(2, 8, 6, 10)
    seen = ATTENTIONS[name](8).eval()(x)
    assert seen.shape == x.shape
    assert torch.equal(seen, x) == (name == "none")
