# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Loss and maps against independent implementations."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from anomalib_vmpfd.nn.grid import CellGeometry
from anomalib_vmpfd.models.vmpfd_ad.anomaly_map import AnomalyMapGenerator, CellMap, PlaceStatistics
from anomalib_vmpfd.models.vmpfd_ad.loss import VmpfdAdLoss, reconstruction_terms

pytestmark = pytest.mark.numeric


def test_reconstruction_terms_are_equation_4_and_the_ssim_of_scikit_image():
    generator = np.random.default_rng(0)
    x = generator.random((2, 3, 64, 48)).astype(np.float32)
    x_hat = np.clip(x + 0.1 * generator.standard_normal(x.shape), 0, 1).astype(np.float32)
    terms = reconstruction_terms(torch.from_numpy(2 * x - 1), torch.from_numpy(2 * x_hat - 1))

    frobenius = [np.linalg.norm((2 * a - 2 * b).ravel()) ** 2 / (64 * 48) for a, b in zip(x, x_hat, strict=True)]
    assert terms["mse"].item() == pytest.approx(np.mean(frobenius), rel=1e-5)
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "win_size": 11}
    similarities = [
        structural_similarity(a, b, channel_axis=0, data_range=1.0, **gaussian) for a, b in zip(x, x_hat, strict=True)
    ]
    assert terms["ssim"].item() == pytest.approx(np.mean(similarities), abs=2e-4)


def test_loss_is_equation_8_over_the_branches_that_are_on():
    terms = {"nll": torch.tensor(2.0), "mse": torch.tensor(0.3), "ssim": torch.tensor(0.6)}
    assert VmpfdAdLoss(5.0)(terms).item() == pytest.approx(2.0 + 5 * 0.3 + 0.4)
    assert VmpfdAdLoss(5.0)({"nll": terms["nll"]}).item() == pytest.approx(2.0)


def test_maps_follow_equations_15_to_20():
    generator = np.random.default_rng(0)
    normals = [generator.gamma(2.0, size=(10, 1, 16, 16)).astype(np.float32) for _ in range(2)]
    maps = AnomalyMapGenerator(weights=(0.7, 0.3))
    expected = 0
    probe = [generator.gamma(2.0, size=(2, 1, 16, 16)).astype(np.float32) for _ in range(2)]
    for branch, weight in enumerate((0.7, 0.3)):
        start, end = np.quantile(normals[branch], [0.9, 0.995])
        maps.calibrate(branch, torch.tensor([start, end]))
        expected = expected + weight * (probe[branch] - start) / (end - start)
    np.testing.assert_allclose(maps([torch.from_numpy(p) for p in probe]), expected, rtol=1e-4, atol=1e-5)
    start, end = np.quantile(normals[0], [0.9, 0.995])
    alone = maps([torch.from_numpy(probe[0]), None])
    np.testing.assert_allclose(alone, (probe[0] - start) / (end - start), rtol=1e-4, atol=1e-5)


def test_a_branch_without_scale_stays_finite():
    maps = AnomalyMapGenerator()
    maps.calibrate(0, torch.tensor([0.5, 0.5]))
    assert maps([torch.full((1, 1, 8, 8), 0.5), None]).isfinite().all()


def test_an_anomalous_cell_shows_at_the_pixels_that_it_saw():
    """Cell (10, 40) of a PDN sees the pixels 40..72 and 160..192: the maximum lies in their middle."""
    cells = CellMap((256, 256), (56, 56), CellGeometry(4.0, 16.0))
    nll = torch.zeros(1, 56, 56)
    nll[0, 10, 40] = 1
    peak = cells(nll)[0, 0].flatten().argmax().item()
    assert divmod(peak, 256) == (56, 176)


@pytest.mark.parametrize(("images", "ratio"), [(5, 4.5), (30, 3.5), (100, 2.5)])
def test_cells_of_calibration_images_are_judged_as_those_of_new_images(images, ratio):
    """With few images the spread of their own judged scores is that of new normals, not a flattered one."""
    torch.manual_seed(0)
    restless = torch.ones(16, 16)
    restless[:3] = 5  # a border that varies more than the rest
    places, cells = PlaceStatistics((16, 16)), CellMap((64, 64), (16, 16), CellGeometry(4.0, 1.5))
    own, new, raw = [], [], []
    for _ in range(40):
        draw = 10 + restless * torch.randn(images + 20, 16, 16)
        own.append(cells(places.calibrate(draw[:images])).flatten(1).max(1).values)
        new.append(cells(places(draw[images:])).flatten(1).max(1).values)
        judged = places(draw[images:])
        raw.append((judged[:, :3].std() / judged[:, 3:].std()).item())
    assert torch.cat(own).mean().item() == pytest.approx(torch.cat(new).mean().item(), rel=0.1)
    assert np.mean(raw) < ratio  # the more images, the less the border decides: 5 without calibration
