# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The model of figure 1 by itself: terms of the loss, calibration, what each branch shows."""

import pytest
import torch

from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.anomaly.scale import bounded
from anomalib_vmpfd.models.vmpfd_ad.loss import reconstruction_terms
from anomalib_vmpfd.models.vmpfd_ad.torch_model import VmpfdAdModel

PAPER = {
    "image_size": (64, 64),
    "encoder_args": {"dim": 16, "depth": 1},
    "density": "predicted",
    "density_args": {"num_components": 2, "target": "self", "train_cells": None},
    "reconstruction": "pixels",
    "reconstruction_args": {"lambda_mse": 3.0},
}


def build(**arguments) -> VmpfdAdModel:
    return VmpfdAd(**{**PAPER, **arguments}, visualizer=False).model


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_the_loss_is_equation_8_over_the_branches_that_are_there(images):
    model = build().train()
    terms = model(images)
    assert set(terms) == {"nll", "mse", "dssim"}
    features = model.features(images)
    raw = reconstruction_terms(features.target, model.reconstruction.decoder(features.encoded))
    assert terms["mse"].item() == pytest.approx(3.0 * raw["mse"].item(), rel=1e-4)
    assert terms["dssim"].item() == pytest.approx(1 - raw["ssim"].item(), rel=1e-4)
    assert set(build(reconstruction=None, reconstruction_args=None).train()(images)) == {"nll"}
    assert set(build(density=None, density_args=None).train()(images)) == {"mse", "dssim"}


def test_every_trainable_parameter_gets_a_gradient(images):
    for arguments in ({}, {"reconstruction": "descriptors", "density_args": {"num_components": 2}}):
        model = build(**arguments).train()
        torch.stack(list(model(images).values())).sum().backward()
        without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not without


@pytest.mark.parametrize("image_score", ["map", "branches"])
def test_predictions_are_bounded_and_the_score_is_the_maximum_of_the_map_or_of_the_branches(image_score, images):
    model = build(image_score=image_score).eval()
    seen = model(images)
    assert seen.anomaly_map.shape == (4, 1, 64, 64)
    assert ((seen.anomaly_map > 0) & (seen.anomaly_map < 1)).all()
    scores = model.score(images)
    of_branches = bounded(sum(branch.image_score(scores[name]) for name, branch in model.branches.items()))
    expected = seen.anomaly_map.amax((1, 2, 3)) if image_score == "map" else of_branches
    torch.testing.assert_close(seen.pred_score, expected)


def test_descriptors_that_are_known_are_not_computed_again(images, monkeypatch):
    model = build().eval()
    expected = model(images)
    known = model.descriptor.describe(images)
    monkeypatch.setattr(model.descriptor, "describe", lambda _images: pytest.fail("they were given"))
    torch.testing.assert_close(model(images, known).anomaly_map, expected.anomaly_map)


def test_calibration_brings_the_quantiles_of_each_branch_to_0_and_1(images):
    model = build(image_score="map", map_weights=(0.5, 0.5)).eval()
    with torch.no_grad():
        scores = model.score(images)
    (predictions,) = model.calibrate(scores, (0.5, 0.9))
    torch.testing.assert_close(predictions.anomaly_map, model(images).anomaly_map, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predictions.pred_score, model(images).pred_score, rtol=1e-4, atol=1e-5)
    seen = model.explain(images)
    gam = seen["gam"].flatten().quantile(torch.tensor([0.5, 0.9]))
    torch.testing.assert_close(gam, torch.tensor([0.0, 1.0]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(seen["tam"], 0.5 * seen["lam"] + 0.5 * seen["gam"])
    torch.testing.assert_close(seen["score"], seen["tam"].amax((1, 2, 3)))
    assert seen["reconstruction"].shape == images.shape


def test_a_branch_that_is_left_out_is_missing(images):
    assert "gam" not in build(reconstruction=None, reconstruction_args=None).eval().explain(images)
    assert "lam" not in build(density=None, density_args=None).eval().explain(images)
