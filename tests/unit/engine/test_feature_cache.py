# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Features of an image are extracted once, as long as there is memory for them."""

import torch

from anomalib_vmpfd.engine.feature_cache import CachedFeatures

MEGABYTE = 2**20


def described(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Features on two grids."""
    return images[:, :1] + 1 / 3, images[:, :2, ::2, ::2] / 3


class Extractor:
    def __init__(self) -> None:
        self.images = 0

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.images += len(images)
        return described(images)


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_an_image_is_described_once_whatever_batch_it_comes_in():
    extractor = Extractor()
    features, batch = CachedFeatures(extractor, limit_mb=1), images(4)
    first = features(batch, ["a", "b", "c", "d"])
    again = features(batch[[2, 0]], ["c", "a"])
    assert extractor.images == 4
    torch.testing.assert_close(again, tuple(level[[2, 0]] for level in first), rtol=0, atol=0)
    torch.testing.assert_close(first, described(batch), rtol=1e-3, atol=1e-3)
    assert {level.dtype for level in first} == {torch.float32}


def test_the_first_epoch_sees_the_precision_of_the_later_ones():
    features, batch = CachedFeatures(Extractor(), limit_mb=1), images(2)
    first = features(batch, ["a", "b"])
    assert not torch.equal(first[0], described(batch)[0])
    torch.testing.assert_close(features(batch, ["a", "b"]), first, rtol=0, atol=0)


def test_images_beyond_the_limit_are_described_anew_in_full_precision():
    extractor = Extractor()
    features, batch = CachedFeatures(extractor, limit_mb=3 * (16 + 8) * 2 / MEGABYTE), images(4)
    features(batch, ["a", "b", "c", "d"])
    features(batch[:3], ["a", "b", "c"])
    assert extractor.images == 4
    assert "c" in features
    assert "d" not in features
    seen = features(batch[3:], ["d"])
    assert extractor.images == 5
    torch.testing.assert_close(seen, described(batch[3:]), rtol=0, atol=0)


def test_nothing_is_kept_of_augmented_images_and_of_images_without_files():
    for limit, paths in ((0, ["a", "b"]), (1, None), (1, []), (1, ["a", None])):
        extractor = Extractor()
        features, batch = CachedFeatures(extractor, limit_mb=limit), images(2)
        for _ in range(2):
            torch.testing.assert_close(features(batch, paths), described(batch), rtol=0, atol=0)
        assert extractor.images == 4


def test_what_is_known_can_be_had_without_the_images():
    extractor = Extractor()
    features, batch = CachedFeatures(extractor, limit_mb=1), images(2)
    cpu = torch.device("cpu")
    assert features.known(["a", "b"], cpu) is None
    first = features(batch, ["a", "b"])
    torch.testing.assert_close(features.known(["b"], cpu), tuple(level[1:] for level in first), rtol=0, atol=0)
    assert features.known(["b", "c"], cpu) is None
    assert extractor.images == 2
