# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Features of an image are extracted once, as long as there is memory for them."""

import torch

from anomalib_vmpfd.engine.feature_cache import CachedFeatures

MEGABYTE = 2**20


class Extractor:
    def __init__(self) -> None:
        self.images = 0

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.images += len(images)
        return images[:, :1] + 1 / 3, images[:, 1:, :2, :2]


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_an_image_is_described_once_whatever_batch_it_comes_in():
    extractor = Extractor()
    features, batch = CachedFeatures(extractor, limit_mb=1), images(4)
    first, coarse = features(batch, ["a", "b", "c", "d"])
    again = features(batch[[2, 0]], ["c", "a"])
    assert extractor.images == 4
    torch.testing.assert_close(again, (first[[2, 0]], coarse[[2, 0]]), rtol=0, atol=0)
    torch.testing.assert_close(first, batch[:, :1] + 1 / 3, rtol=1e-3, atol=1e-3)
    assert first.dtype == torch.float32


def test_the_first_epoch_sees_the_precision_of_the_later_ones():
    features, batch = CachedFeatures(Extractor(), limit_mb=1), images(2)
    first = features(batch, ["a", "b"])
    assert not torch.equal(first[0], batch[:, :1] + 1 / 3)
    torch.testing.assert_close(features(batch, ["a", "b"]), first, rtol=0, atol=0)


def test_images_beyond_the_limit_are_described_anew_in_full_precision():
    extractor = Extractor()
    features, batch = CachedFeatures(extractor, limit_mb=3 * (16 + 8) * 2 / MEGABYTE), images(4)
    features(batch, ["a", "b", "c", "d"])
    features(batch[:3], ["a", "b", "c"])
    assert extractor.images == 4
    assert "a" in features
    assert "d" not in features
    assert features.known(["a", "d"], torch.device("cpu")) is None
    seen, _ = features(batch[3:], ["d"])
    assert extractor.images == 5
    torch.testing.assert_close(seen, batch[3:, :1] + 1 / 3, rtol=0, atol=0)


def test_nothing_is_kept_of_augmented_images_and_of_images_without_files():
    for limit, paths in ((0, ["a", "b"]), (1, None), (1, []), (1, ["a", None])):
        extractor = Extractor()
        features, batch = CachedFeatures(extractor, limit_mb=limit), images(2)
        for _ in range(2):
            torch.testing.assert_close(features(batch, paths)[0], batch[:, :1] + 1 / 3, rtol=0, atol=0)
        assert extractor.images == 4
