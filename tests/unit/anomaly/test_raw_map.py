# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What is usual for a map: quantiles of normals, and maxima of their images."""

import numpy as np
import pytest
import torch

from anomalib_vmpfd.anomaly.raw_map import RawMap
from anomalib_vmpfd.nn.grid import pixel_grid

SIZE = (32, 32)


def normals(count: int = 20) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).gamma(2.0, size=(count, 8, 8)).astype(np.float32))


@pytest.mark.parametrize("quantiles_of", ["cells", "pixels"])
def test_maps_follow_equations_15_to_20(quantiles_of):
    grid = pixel_grid(SIZE) if quantiles_of == "pixels" else pixel_grid(SIZE).pooled((8, 8))
    raw_map, scores = RawMap(grid, SIZE, quantiles_of=quantiles_of), torch.rand(10, *grid.shape)
    raw_map.calibrate(scores, (0.9, 0.995))
    start, end = np.quantile(scores.numpy(), [0.9, 0.995])
    expected = (raw_map.to_pixels(scores)[:, None] - start) / (end - start)
    torch.testing.assert_close(raw_map.anomaly_map(scores), expected.float(), rtol=1e-4, atol=1e-4)


def test_the_image_score_is_the_maximum_over_that_of_normals():
    raw_map = RawMap(pixel_grid(SIZE).pooled((8, 8)), SIZE)
    left_out = raw_map.calibrate(normals(), (0.9, 0.995))
    assert left_out.mean().item() == pytest.approx(0, abs=1e-5)
    assert left_out.std(unbiased=False).item() == pytest.approx(1, abs=1e-5)
    new = normals()[:3].clone()
    new[1, 4, 4] += 50
    scores = raw_map.image_score(new)
    assert scores.argmax() == 1
    assert scores[1] > left_out.max()


def test_normals_that_are_all_the_same_leave_all_finite():
    for count in (1, 5):
        raw_map = RawMap(pixel_grid(SIZE).pooled((8, 8)), SIZE)
        assert raw_map.calibrate(torch.full((count, 8, 8), 0.5), (0.9, 0.995)).isfinite().all()
        assert raw_map.anomaly_map(torch.rand(2, 8, 8)).isfinite().all()
        assert raw_map.image_score(torch.rand(2, 8, 8)).isfinite().all()


def test_scales_come_back_with_a_checkpoint():
    first, again = (RawMap(pixel_grid(SIZE).pooled((8, 8)), SIZE) for _ in range(2))
    first.calibrate(normals(), (0.9, 0.995))
    again.load_state_dict(first.state_dict())
    new = normals()[:2] + 1
    torch.testing.assert_close(again.anomaly_map(new), first.anomaly_map(new), rtol=0, atol=0)
    torch.testing.assert_close(again.image_score(new), first.image_score(new), rtol=0, atol=0)
