# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The model of figure 1 by itself: terms of the loss, calibration, what each branch shows."""

import pytest
import torch

from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.anomaly.scale import unbounded
from anomalib_vmpfd.models.vmpfd_ad import torch_model
from anomalib_vmpfd.models.vmpfd_ad.loss import reconstruction_terms
from anomalib_vmpfd.models.vmpfd_ad.torch_model import VmpfdAdModel

PAPER = {
    "image_size": (64, 64),
    "encoder_args": {"dim": 16, "depth": 1},
    "density": "predicted",
    "density_args": {"num_components": 2, "target": "self", "train_cells": None},
    "reconstruction": "pixels",
    "reconstruction_args": {"lambda_mse": 3.0},
    "map_weights": (0.6, 0.4),
}
LOCAL = {"reconstruction": None, "reconstruction_args": None, "map_weights": (0.7, 0.3)}
GLOBAL = {"density": None, "density_args": None, "map_weights": (0.7, 0.3)}
# the parts of the default, without anything to train
DEFAULT = {
    "encoder_args": None,
    "density": "prototypes",
    "density_args": {"num_components": 8},
    "reconstruction": "components",
    "reconstruction_args": None,
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
    assert set(build(**LOCAL).train()(images)) == {"nll"}
    assert set(build(**GLOBAL).train()(images)) == {"mse", "dssim"}


def test_every_trainable_parameter_gets_a_gradient(images):
    for arguments in (
        {},
        {"reconstruction": "descriptors", "density_args": {"num_components": 2}},
        {**DEFAULT, "encoder_args": {"dim": 16, "depth": 1}, "reconstruction": "descriptors"},
    ):
        model = build(**arguments).train()
        torch.stack(list(model(images).values())).sum().backward()
        without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not without


def test_in_the_default_nothing_is_trained(images):
    model = build(**DEFAULT).train()
    assert model(images) == {}
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("arguments", [{}, DEFAULT], ids=["paper", "default"])
def test_the_score_is_the_maximum_of_the_map_of_equation_21_or_the_sum_of_standardised_maxima(images, arguments):
    of_map, of_branches = (build(**arguments, image_score=score).eval() for score in ("map", "branches"))
    for model in (of_map, of_branches):
        with torch.no_grad():
            # the images themselves as normals: any scale does
            list(model.calibrate(model.score(images), (0.5, 0.9)))
            seen = model(images)
        assert seen.anomaly_map.shape == (4, 1, 64, 64)
        assert ((seen.anomaly_map > 0) & (seen.anomaly_map < 1)).all()
        if model is of_map:
            torch.testing.assert_close(seen.pred_score, seen.anomaly_map.amax((1, 2, 3)))
        else:
            scores = model.score(images)
            standardised = [
                (each.locations(raw).amax((1, 2)) - each.maximum[0]) / each.maximum[1]
                for name, branch in model.branches.items()
                for each, raw in zip(branch.maps, scores[name], strict=True)
                if each.in_image_score
            ]
            expected = torch.stack(standardised).sum(0)
            torch.testing.assert_close(unbounded(seen.pred_score), expected, rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(model.explain(images)["score"], expected, rtol=1e-3, atol=1e-3)


def test_images_that_are_not_finite_are_anomalous(images):
    for arguments in ({}, DEFAULT):
        images[1, :, 10:20] = torch.nan
        with torch.no_grad():
            seen = build(**arguments).eval()(images)
        assert seen.pred_score[1] == 1
        assert seen.anomaly_map.isfinite().all()


def test_descriptors_that_are_known_are_not_computed_again(images, monkeypatch):
    model = build().eval()
    expected = model(images)
    known = model.descriptor.describe(images)
    assert isinstance(known, tuple)
    monkeypatch.setattr(model.descriptor, "describe", lambda _images: pytest.fail("they were given"))
    torch.testing.assert_close(model(images, known).anomaly_map, expected.anomaly_map)


@pytest.mark.parametrize("image_score", ["map", "branches"])
def test_calibration_brings_the_quantiles_of_each_branch_to_0_and_1(images, image_score, monkeypatch):
    monkeypatch.setattr(torch_model, "MAPS_AT_ONCE", 3)
    model = build(image_score=image_score).eval()
    with torch.no_grad():
        scores = model.score(images)
    predictions = list(model.calibrate(scores, (0.5, 0.9)))
    assert [len(part.pred_score) for part in predictions] == [3, 1], "maps of a few images at a time"
    maps = torch.cat([part.anomaly_map for part in predictions])
    torch.testing.assert_close(maps, model(images).anomaly_map, rtol=1e-4, atol=1e-5)
    seen = model.explain(images)
    for name in ("lam", "gam"):
        quantiles = seen[name].flatten().quantile(torch.tensor([0.5, 0.9]))
        torch.testing.assert_close(quantiles, torch.tensor([0.0, 1.0]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(seen["tam"], 0.6 * seen["lam"] + 0.4 * seen["gam"])
    assert seen["reconstruction"].shape == images.shape
    left_out = unbounded(torch.cat([part.pred_score for part in predictions]))
    if image_score == "map":
        torch.testing.assert_close(left_out, seen["tam"].amax((1, 2, 3)), rtol=1e-4, atol=1e-4)
    else:
        # each image by the usual scores of the others, not of its own
        own = seen["score"]
        assert not torch.allclose(left_out, own, atol=1e-2)
        assert left_out.mean().item() == pytest.approx(0, abs=1e-4)


def test_a_branch_that_is_left_out_is_missing(images):
    assert "gam" not in build(**LOCAL).eval().explain(images)
    assert "lam" not in build(**GLOBAL).eval().explain(images)
