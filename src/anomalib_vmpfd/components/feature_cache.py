# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Cache of frozen descriptors during one training."""

from collections.abc import Sequence

import torch
from torch import Tensor


class FeatureCache:
    """Keep the descriptors of training images in memory, in half precision, up to a limit.

    The descriptor is frozen, so an image that is not augmented has the same descriptor in every epoch. The cache lives
    for one fit: other weights or another image size start with an empty one.

    Args:
        limit_mb (float): Megabytes to use at the most; images that do not fit are described anew each time.
    """

    def __init__(self, limit_mb: float) -> None:
        self._free = limit_mb * 2**20
        self._features: dict[str, Tensor] = {}

    def put(self, paths: Sequence[str], features: Tensor) -> None:
        """Keep features of shape ``(B, C, h, w)``, one entry a path, while there is room."""
        for path, feature in zip(paths, features, strict=True):
            if path not in self._features and feature.numel() * 2 <= self._free:
                # half precision changes a normalised channel by less than 0.001 of its spread
                self._features[path] = feature.detach().to("cpu", torch.float16, copy=True)
                self._free -= feature.numel() * 2

    def get(self, paths: Sequence[str], device: torch.device) -> Tensor | None:
        """Features ``(B, C, h, w)`` in float32, or ``None`` unless every path is known."""
        if not all(path in self._features for path in paths):
            return None
        # one by one: autocast in bfloat16 cannot stack the half precision of the cache
        return torch.stack([self._features[path].to(device, torch.float32) for path in paths])
