# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Features of a frozen network, extracted once for each image of a training."""

from collections.abc import Callable, Sequence

import torch
from lightning import Trainer
from torch import Tensor

Features = tuple[Tensor, ...]


class CachedFeatures:
    """Extract features, and keep those of training images in memory, in half precision, up to a limit.

    The network is frozen, so an image that is not augmented has the same features in every epoch. The cache lives for
    one fit: other weights or another image size start with an empty one.

    Args:
        extract (Callable[[Tensor], Features]): From images ``(B, 3, H, W)`` to features, ``(B, C, h, w)`` each.
        limit_mb (float): Megabytes to use at the most; images that do not fit are described anew each time. 0 keeps
            nothing, as for augmented images.
    """

    def __init__(self, extract: Callable[[Tensor], Features], limit_mb: float) -> None:
        self._extract = extract
        self._caches = limit_mb > 0
        self._free = limit_mb * 2**20
        self._features: dict[str, Features] = {}

    def __call__(self, images: Tensor, paths: Sequence[str] | None) -> Features:
        """Features of images.

        Args:
            images (Tensor): Images of shape ``(B, 3, H, W)``.
            paths (Sequence[str] | None): Their files; without them nothing is kept.

        Returns:
            Features: Features of shape ``(B, C, h, w)`` each.
        """
        if not self._caches or not paths or None in paths:
            return self._described(images)
        cached = self.known(paths, images.device)
        if cached is None:
            described = self._described(images)
            self._put(paths, described)
            # the cached precision from the first epoch on, or a resumed training would differ
            cached = self.known(paths, images.device)
        return described if cached is None else cached

    def __contains__(self, path: str) -> bool:
        """Whether the features of an image are kept."""
        return path in self._features

    def known(self, paths: Sequence[str], device: torch.device) -> Features | None:
        """Features of images that were extracted before, without the images; ``None`` unless all of them were."""
        if not all(path in self._features for path in paths):
            return None
        # one by one: autocast in bfloat16 cannot stack the half precision of the cache
        images = [[feature.to(device, torch.float32) for feature in self._features[path]] for path in paths]
        return tuple(torch.stack(parts) for parts in zip(*images, strict=True))

    def _described(self, images: Tensor) -> Features:
        # on a CPU the activations of one image stay in its cache, which saves a third of the time
        chunk = 1 if images.device.type == "cpu" else len(images)
        parts = [self._extract(part) for part in images.split(chunk)]
        return tuple(torch.cat(each) for each in zip(*parts, strict=True))

    def _put(self, paths: Sequence[str], features: Features) -> None:
        for path, *image in zip(paths, *features, strict=True):
            size = sum(feature.numel() * 2 for feature in image)
            if path not in self._features and size <= self._free:
                # half precision changes a normalised channel by less than 0.001 of its spread
                self._features[path] = tuple(f.detach().to("cpu", torch.float16, copy=True) for f in image)
                self._free -= size


def training_cache(trainer: Trainer, extract: Callable[[Tensor], Features], limit_mb: float) -> CachedFeatures:
    """Cache for one training, which keeps nothing where images are augmented or may be.

    Args:
        trainer (Trainer): The trainer of a fit.
        extract (Callable[[Tensor], Features]): See :class:`CachedFeatures`.
        limit_mb (float): See :class:`CachedFeatures`.

    Returns:
        CachedFeatures: An empty cache.
    """
    # what a user's own loader does to its images is not known
    augmented = getattr(getattr(trainer, "datamodule", None), "train_augmentations", True) is not None
    return CachedFeatures(extract, 0 if augmented else limit_mb)
