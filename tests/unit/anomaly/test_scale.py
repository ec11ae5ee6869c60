# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Quantiles and bounded scores."""

import numpy as np
import pytest
import torch

from anomalib_vmpfd.anomaly.scale import bounded, quantiles, unbounded


def test_quantiles_are_those_of_numpy_also_beyond_the_limit_of_torch():
    generator = np.random.default_rng(0)
    maps = [generator.normal(size=(9, 1, 1024, 1024)).astype(np.float32) for _ in range(2)]
    assert sum(m.size for m in maps) > 2**24
    expected = np.quantile(np.concatenate([m.ravel() for m in maps]), [0.9, 0.995])
    np.testing.assert_allclose(quantiles([torch.from_numpy(m) for m in maps], (0.9, 0.995)), expected, rtol=1e-6)


def test_bounded_scores_keep_the_order_where_a_sigmoid_saturates():
    scores = torch.tensor([-1e3, -5.0, 0.0, 1e-3, 16.6, 17.0, 100.0, 101.0, 1e3])
    squashed = bounded(scores)
    assert (squashed.diff() > 0).all()
    assert ((squashed > 0) & (squashed < 1)).all()
    assert torch.sigmoid(scores[-2:]).diff() == 0


@pytest.mark.parametrize(("low", "high"), [(-5, 5), (-1000, 1000), (0, 0.1), (-0.1, 0)])
def test_no_two_scores_change_places_by_rounding(low, high):
    scores = (torch.rand(500_000, generator=torch.Generator().manual_seed(0)) * (high - low) + low).sort().values
    assert (bounded(scores).diff() >= 0).all()
    assert (unbounded(bounded(scores)).diff() >= 0).all()


def test_scores_come_back_and_infinite_ones_stay_at_their_end():
    scores = torch.tensor([-1e3, -3.0, -0.0, 0.0, 0.25, 7.0, 1e3, torch.inf, -torch.inf])
    torch.testing.assert_close(unbounded(bounded(scores)), scores, rtol=1e-3, atol=1e-6)
    finite = scores[:-2]
    torch.testing.assert_close(bounded(finite), 0.5 + 0.5 * finite / (1 + finite.abs()))
    assert bounded(torch.tensor(torch.nan)).isnan()
