# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Fusion of maps on the scale of normals."""

import numpy as np
import torch

from anomalib_vmpfd.anomaly.fusion import QuantileFusion


def test_maps_follow_equations_15_to_20():
    generator = np.random.default_rng(0)
    normals = [generator.gamma(2.0, size=(10, 1, 16, 16)).astype(np.float32) for _ in range(2)]
    fusion = QuantileFusion(weights=(0.7, 0.3))
    expected = 0
    probe = [generator.gamma(2.0, size=(2, 1, 16, 16)).astype(np.float32) for _ in range(2)]
    for branch, weight in enumerate((0.7, 0.3)):
        start, end = np.quantile(normals[branch], [0.9, 0.995])
        fusion.calibrate(branch, torch.tensor([start, end]))
        expected = expected + weight * (probe[branch] - start) / (end - start)
    np.testing.assert_allclose(fusion([torch.from_numpy(p) for p in probe]), expected, rtol=1e-4, atol=1e-5)


def test_a_single_branch_has_weight_one():
    fusion = QuantileFusion(weights=(0.3,))
    fusion.calibrate(0, torch.tensor([2.0, 6.0]))
    torch.testing.assert_close(fusion([torch.full((1, 1, 2, 2), 4.0)]), torch.full((1, 1, 2, 2), 0.5))


def test_a_branch_without_scale_stays_finite():
    fusion = QuantileFusion((1.0,))
    fusion.calibrate(0, torch.tensor([0.5, 0.5]))
    assert fusion([torch.full((1, 1, 8, 8), 0.5)]).isfinite().all()


def test_quantiles_come_back_with_a_checkpoint():
    fusion, again = QuantileFusion((0.5, 0.5)), QuantileFusion((0.5, 0.5))
    fusion.calibrate(1, torch.tensor([1.0, 3.0]))
    again.load_state_dict(fusion.state_dict())
    torch.testing.assert_close(again.normalize(1, torch.tensor(2.0)), torch.tensor(0.5))
