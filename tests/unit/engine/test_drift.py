# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Drift: another light or focus than in training is told, an image of training is not."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from anomalib_vmpfd.engine.drift import DriftGuard, ImageDrift


def parts(count: int, seed: int) -> Tensor:
    """A bright square with texture on a dark ground, in a light that varies by some per cent."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.full((count, 3, 48, 48), 0.2)
    images[:, :, 12:36, 12:36] = 0.6 + 0.1 * torch.rand(count, 3, 24, 24, generator=generator)
    return images * (1 + 0.03 * torch.randn(count, 1, 1, 1, generator=generator))


@pytest.fixture(scope="module")
def drift() -> ImageDrift:
    drift = ImageDrift()
    drift.fit(parts(100, seed=0).split(16))
    return drift


def test_new_images_in_the_same_light_stay_within_the_limit(drift):
    assert (drift(parts(200, seed=1)) > 1).float().mean() <= 0.05


@pytest.mark.parametrize(
    "change",
    [
        lambda images: 0.7 * images,
        lambda images: 1.3 * images,
        lambda images: gaussian_blur(images, 7),
        lambda images: 0.4 + 0.3 * (images - 0.4),
    ],
    ids=["darker", "brighter", "blurred", "flat"],
)
def test_other_light_contrast_or_focus_is_beyond_it(drift, change):
    assert (drift(change(parts(20, seed=1)).clamp(0, 1)) > 1).all()


def test_the_size_of_a_batch_changes_nothing(drift):
    at_once = ImageDrift()
    at_once.fit([parts(100, seed=0)])
    assert torch.allclose(at_once(parts(8, seed=1)), drift(parts(8, seed=1)), rtol=1e-4)


def test_images_that_are_all_alike_have_a_limit():
    drift = ImageDrift()
    drift.fit([torch.zeros(4, 3, 16, 16)])
    assert float(drift(torch.zeros(1, 3, 16, 16))) == 0
    assert float(drift(torch.full((1, 3, 16, 16), 0.5))) > 1


def test_the_end_of_a_prediction_tells_how_many(drift, caplog):
    guard, module = DriftGuard(), SimpleNamespace(drift=drift)
    with caplog.at_level(logging.WARNING):
        batch = SimpleNamespace(image=parts(6, seed=2))
        guard.on_predict_batch_end(None, module, batch, batch, 0)
        assert batch.drift.shape == (6,)
        guard.on_predict_end(None, module)
        assert not caplog.records
        for images in (parts(6, seed=2), 0.5 * parts(2, seed=2)):
            batch = SimpleNamespace(image=images)
            guard.on_predict_batch_end(None, module, batch, batch, 0)
        guard.on_predict_end(None, module)
    assert "2 of 8 images differ" in caplog.text
