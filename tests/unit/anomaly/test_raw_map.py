# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Maps on the scale of normals, and maxima that are standard scores of normals."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.anomaly import raw_map as module
from anomalib_vmpfd.anomaly.raw_map import RawMap
from anomalib_vmpfd.nn.grid import pixel_grid

pytestmark = pytest.mark.numeric
QUANTILES = (0.9, 0.995)


def raw_map(cells: int = 8, **arguments) -> RawMap:
    """Cells of four pixels a side."""
    size = (4 * cells, 4 * cells)
    return RawMap(pixel_grid(size).pooled((cells, cells)), size, **arguments)


def gamma(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).gamma(2.0, size=shape).astype(np.float32))


def in_pixels(scores: torch.Tensor) -> torch.Tensor:
    """Upsampled by torch, ``(B, H, W)``."""
    return F.interpolate(scores[:, None], scale_factor=4, mode="bilinear", align_corners=False)[:, 0]


@pytest.mark.parametrize("quantiles_of", ["cells", "pixels"])
def test_maps_follow_equations_15_to_20(quantiles_of):
    normals, probe = gamma(10, 8, 8), gamma(3, 8, 8, seed=1)
    each = raw_map(quantiles_of=quantiles_of)
    each.calibrate(normals, QUANTILES)
    values = normals if quantiles_of == "cells" else in_pixels(normals)
    start, end = np.quantile(values.numpy(), QUANTILES)
    expected = (in_pixels(probe) - start) / (end - start)
    torch.testing.assert_close(each.anomaly_map(probe)[:, 0], expected.float(), rtol=1e-4, atol=1e-4)


def test_quantiles_of_pixels_and_cells_are_not_the_same():
    """Interpolation between cells takes the edge off the largest values."""
    of_cells, of_pixels = raw_map(), raw_map(quantiles_of="pixels")
    for each in (of_cells, of_pixels):
        each.calibrate(gamma(10, 8, 8), QUANTILES)
    assert of_pixels.quantiles[1] < 0.95 * of_cells.quantiles[1]


@pytest.mark.parametrize("quantiles_of", ["cells", "pixels"])
def test_of_very_many_values_every_few_images_give_the_quantiles(quantiles_of, monkeypatch):
    monkeypatch.setattr(module, "QUANTILE_CELLS", 64 * (1 if quantiles_of == "cells" else 16) * 50)
    seen = []
    monkeypatch.setattr(module, "quantiles", lambda values, q: seen.extend(values) or torch.tensor(q))
    raw_map(quantiles_of=quantiles_of).calibrate(gamma(150, 8, 8), QUANTILES)
    assert len(seen[0]) == 50


def region_of(lines: slice, columns: slice) -> torch.Tensor:
    """Pixels ``(32, 32)`` of a region of interest."""
    region = torch.zeros(32, 32, dtype=torch.bool)
    region[lines, columns] = True
    return region


@pytest.mark.parametrize("quantiles_of", ["cells", "pixels"])
def test_quantiles_are_those_of_a_region_of_interest_alone(quantiles_of):
    """Whatever scores are outside of it: a cell counts where one of its 4 x 4 pixels lies inside."""
    region = region_of(slice(6, 27), slice(3, 30))
    region |= region_of(slice(0, 2), slice(10, 11))
    normals = gamma(10, 8, 8)
    squares = region.reshape(8, 4, 8, 4).numpy().any((1, 3))
    assert 0 < squares.sum() < 64
    values = in_pixels(normals)[:, region] if quantiles_of == "pixels" else normals[:, torch.from_numpy(squares)]
    each = raw_map(quantiles_of=quantiles_of)
    each.look_at(region)
    each.calibrate(normals, QUANTILES)
    np.testing.assert_allclose(each.quantiles, np.quantile(values.numpy(), QUANTILES), rtol=1e-5)
    everywhere = raw_map(quantiles_of=quantiles_of)
    everywhere.calibrate(normals, QUANTILES)
    assert not torch.allclose(each.quantiles, everywhere.quantiles, rtol=1e-3)


def test_a_region_of_interest_is_calibrated_as_a_map_of_its_own():
    """Locations, maxima and image scores too: cells outside are as if they were not there, however they score."""
    lines, columns = slice(2, 6), slice(1, 5)
    normals, probe = gamma(12, 8, 8), gamma(3, 8, 8, seed=1)
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[lines, columns] = False
    for scores in (normals, probe):
        scores[:, outside] = 50.0
    each, crop = raw_map(), raw_map(4)
    each.look_at(region_of(slice(8, 24), slice(4, 20)))
    seen = each.calibrate(normals, QUANTILES)
    expected = crop.calibrate(normals[:, lines, columns], QUANTILES)
    torch.testing.assert_close(each.quantiles, crop.quantiles)
    torch.testing.assert_close(seen, expected)
    torch.testing.assert_close(each.image_score(probe), crop.image_score(probe[:, lines, columns]))
    again = raw_map()
    again.load_state_dict(each.state_dict())
    torch.testing.assert_close(again.image_score(probe), each.image_score(probe), rtol=0, atol=0)


def test_a_map_that_is_the_same_on_all_normals_stays_finite():
    each = raw_map()
    seen = each.calibrate(torch.full((4, 8, 8), 0.5), QUANTILES)
    for values in (seen, each.anomaly_map(torch.full((1, 8, 8), 0.5)), each.image_score(torch.full((1, 8, 8), 0.7))):
        assert values.isfinite().all()


def test_until_it_is_calibrated_a_map_keeps_its_own_scale():
    scores = gamma(2, 8, 8)
    torch.testing.assert_close(raw_map().anomaly_map(scores)[:, 0], in_pixels(scores), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(raw_map().image_score(scores), scores.amax((1, 2)))


@pytest.mark.parametrize(
    ("images", "mean", "deviation"),
    [(10, 0.1, 0.3), (30, 0.1, 0.15), (100, 0.05, 0.1)],
)
def test_maxima_of_new_normals_are_distributed_as_those_of_the_learnt_ones(images, mean, deviation):
    """Thresholds keep their rate only then; with mean 0 and deviation 1 a sum over maps weighs each alike.

    By the statistics of all learnt images, their own among them, the mean would be 1.0 with 10 and 0.12 with 100.
    """
    torch.manual_seed(0)
    spread = torch.ones(12, 12)
    spread[:3] = 5  # a border of high variance
    own, new = [], []
    for _ in range(60 if images < 100 else 10):
        each = raw_map(12)
        draw = 10 + spread * torch.randn(images + 200, 12, 12)
        own.append(each.calibrate(draw[:images], QUANTILES))
        new.append(each.image_score(draw[images:]))
        assert own[-1].mean().item() == pytest.approx(0, abs=1e-4)
    assert torch.cat(new).mean().item() == pytest.approx(0, abs=mean)
    own_spread, new_spread = (torch.stack(each).std(1).mean().item() for each in (own, new))
    assert new_spread / own_spread == pytest.approx(1, abs=deviation)
    assert own_spread == pytest.approx(1, abs=0.1 if images == 100 else 0.3)


def test_two_normals_that_are_alike_by_chance_do_not_let_their_map_outweigh_the_others():
    """A defect scores about as high whichever two normals are drawn."""
    defect = gamma(1, 8, 8, seed=1)
    defect[0, 3, 3] = 30.0
    seen = []
    for seed in range(200):
        each = raw_map()
        each.calibrate(gamma(2, 8, 8, seed=seed), QUANTILES)
        seen.append(float(each.image_score(defect)))
    assert max(seen) < 2 * np.median(seen)


def test_a_learnt_image_is_judged_by_the_locations_of_the_others():
    """Leave one image out: what one image has of its own must not pass for usual there."""
    torch.manual_seed(0)
    normals = torch.randn(12, 8, 8)
    normals[4, 2, 3] = 30.0
    each = raw_map()
    seen, own = each.calibrate(normals, QUANTILES), each.image_score(normals)
    assert seen.argmax() == 4
    assert seen[4] - seen.median() > 1.2 * (own[4] - own.median())


def test_a_single_normal_image_scores_zero():
    each = raw_map()
    scores = gamma(1, 8, 8)
    torch.testing.assert_close(each.calibrate(scores, QUANTILES), torch.zeros(1))
    torch.testing.assert_close(each.image_score(scores), torch.zeros(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("quantiles_of", ["cells", "pixels"])
def test_all_that_was_calibrated_comes_back_with_a_checkpoint(quantiles_of):
    each, again = raw_map(quantiles_of=quantiles_of), raw_map(quantiles_of=quantiles_of)
    each.calibrate(gamma(6, 8, 8), QUANTILES)
    again.load_state_dict(each.state_dict())
    probe = gamma(2, 8, 8, seed=1)
    torch.testing.assert_close(again.anomaly_map(probe), each.anomaly_map(probe), rtol=0, atol=0)
    torch.testing.assert_close(again.image_score(probe), each.image_score(probe), rtol=0, atol=0)


def test_learnt_images_tell_what_is_usual_at_a_location_and_new_ones_how_high_scores_are():
    """A corner that every image is bad at, and new images that score higher than learnt ones everywhere."""
    learnt, new = gamma(60, 8, 8), 1.5 * gamma(6, 8, 8, seed=1)
    for scores in (learnt, new):
        scores[:, 0, 0] += 40
    each = raw_map()
    image_scores = each.calibrate(new, QUANTILES, learnt)
    assert each.locations.mean[0, 0] > 20
    torch.testing.assert_close(each.image_score(new), image_scores)
    assert image_scores.mean().abs() < 1e-4, "of the new images, not of the learnt ones"
    # six images alone would say too little of the corner
    alone = raw_map()
    alone.calibrate(new, QUANTILES)
    anomalous = gamma(1, 8, 8, seed=2)
    anomalous[:, 0, 0] += 40
    anomalous[:, 4, 4] = 30
    assert each.image_score(anomalous) > alone.image_score(anomalous)
