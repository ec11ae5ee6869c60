# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Figures of the paper."""

import torch

from anomalib_vmpfd.plotting.figures import principal_colors


def test_principal_colors_tell_groups_of_features_apart():
    """Two kinds of cells in twenty dimensions, under noise."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.rand(2, 8, 8, generator=generator) > 0.5
    directions = torch.randn(2, 20, generator=generator)
    features = directions[kind.long()].movedim(-1, 1) + 0.01 * torch.randn(2, 20, 8, 8, generator=generator)
    red = principal_colors(features)[..., 0]
    assert abs(red[kind].mean() - red[~kind].mean()) > 0.9
    assert red[kind].std() < 0.05
