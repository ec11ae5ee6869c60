# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Learnt images as the branches look at them."""

from collections.abc import Iterator, Sequence

import torch
from kornia.geometry.transform import rotate
from torch import Tensor

from anomalib_vmpfd.anomaly.branch import Features
from anomalib_vmpfd.engine.feature_cache import CachedFeatures
from anomalib_vmpfd.engine.learnt_data import LearntImages
from anomalib_vmpfd.engine.normal_images import BATCH_SIZE

from .torch_model import Descriptors, VmpfdAdModel


class LearntFeatures:
    """Features of learnt images, at one angle or at several, one after the other.

    Args:
        model (VmpfdAdModel): The model that learns.
        cache (CachedFeatures | None): Descriptors of images as they are.
        images (LearntImages): The images.
        angles (Sequence[float]): Degrees, counter-clockwise; 0 leaves the images alone.
    """

    def __init__(
        self,
        model: VmpfdAdModel,
        cache: CachedFeatures | None,
        images: LearntImages,
        angles: Sequence[float] = (0.0,),
    ) -> None:
        self._model = model
        self._cache = cache
        self._images = images
        self._angles = angles

    def __len__(self) -> int:
        """Number of images, turned ones too."""
        return len(self._images) * len(self._angles)

    def __iter__(self) -> Iterator[tuple[Features, Tensor]]:
        """Batches of features, not encoded, and the numbers of their images, ``(B,)``."""
        for angle in self._angles:
            for images, descriptors, numbers in self._turned(angle) if angle else self._upright():
                yield self._model.features(images, descriptors, encode=False), numbers

    def evenly(self, count: int) -> "LearntFeatures":
        """At most ``count`` of the images, evenly spaced; they keep their numbers."""
        return LearntFeatures(self._model, self._cache, self._images.evenly(count), self._angles)

    def _upright(self) -> Iterator[tuple[Tensor | None, Descriptors | None, Tensor]]:
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

    def _turned(self, angle: float) -> Iterator[tuple[Tensor | None, Descriptors | None, Tensor]]:
        for batch, part in self._images:
            degrees = torch.tensor(angle, device=batch.image.device)
            yield rotate(batch.image, degrees, padding_mode="reflection"), None, part
