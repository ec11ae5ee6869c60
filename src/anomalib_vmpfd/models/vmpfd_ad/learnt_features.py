# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Learnt images as the branches look at them."""

from collections.abc import Iterator

from torch import Tensor

from anomalib_vmpfd.anomaly.branch import Features
from anomalib_vmpfd.engine.feature_cache import CachedFeatures
from anomalib_vmpfd.engine.learnt_data import LearntImages
from anomalib_vmpfd.engine.normal_images import BATCH_SIZE

from .torch_model import Descriptors, VmpfdAdModel


class LearntFeatures:
    """Features of learnt images.

    Args:
        model (VmpfdAdModel): The model that learns.
        cache (CachedFeatures | None): Descriptors of the images.
        images (LearntImages): The images.
    """

    def __init__(self, model: VmpfdAdModel, cache: CachedFeatures | None, images: LearntImages) -> None:
        self._model = model
        self._cache = cache
        self._images = images

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images)

    def __iter__(self) -> Iterator[tuple[Features, Tensor]]:
        """Batches of features, not encoded, and the numbers of their images, ``(B,)``."""
        for images, descriptors, numbers in self._described():
            yield self._model.features(images, descriptors, encode=False), numbers

    def evenly(self, count: int) -> "LearntFeatures":
        """At most ``count`` of the images, evenly spaced; they keep their numbers."""
        return LearntFeatures(self._model, self._cache, self._images.evenly(count))

    def _described(self) -> Iterator[tuple[Tensor | None, Descriptors | None, Tensor]]:
        numbers, paths, cache = self._images.numbers, self._images.paths, self._cache
        if cache is not None and paths and all(path in cache for path in paths):
            # nothing is read from the disk again
            device = self._images.device
            for start in range(0, len(numbers), BATCH_SIZE):
                part = slice(start, start + BATCH_SIZE)
                yield None, cache.known(paths[part], device), numbers[part].to(device)
            return
        for batch, part in self._images:
            yield batch.image, None if cache is None else cache(batch.image, batch.image_path), part
