# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Prototypes of whole feature maps, and the residual to the nearest of them (section 3.1)."""

import torch
from anomalib.models.components import DynamicBufferMixin
from sklearn.cluster import KMeans
from torch import Tensor

from anomalib_vmpfd.nn.precision import full_float32

MAX_ITERATIONS = 300  # section 4.1


class MapPrototypes(DynamicBufferMixin):
    """Prototypes ``P_j`` of the feature maps of one scale, and the residuals ``D_ij`` to them.

    How many there are is known when they are learnt; a checkpoint brings its own number.

    Args:
        shape (tuple[int, int, int]): Channels, height and width ``(c, h, w)`` of a feature map.

    Attributes:
        prototypes (Tensor): ``(K, c, h, w)``; one of zeros until they are learnt.
    """

    prototypes: Tensor

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("prototypes", torch.zeros(1, *shape))

    @torch.no_grad()
    def fit(self, features: Tensor, count: int, seed: int) -> None:
        """Cluster feature maps of normal images by k-means, from maps that are drawn at random.

        Args:
            features (Tensor): Feature maps ``(N, c, h, w)``.
            count (int): Number of prototypes ``K``, at most ``N``.
            seed (int): Seed of the draw.
        """
        clusters = KMeans(count, init="random", n_init=1, max_iter=MAX_ITERATIONS, random_state=seed)
        centres = clusters.fit(features.flatten(1).float().cpu().numpy()).cluster_centers_
        self.prototypes = torch.from_numpy(centres).to(self.prototypes).unflatten(1, features.shape[1:])

    def nearest(self, features: Tensor) -> Tensor:
        """Nearest prototype ``P_j*`` of each feature map, in the L2 distance of whole maps, ``(B, c, h, w)``."""
        maps, prototypes = features.flatten(1), self.prototypes.flatten(1)
        with full_float32(features.device.type):
            # squared distances, less what all prototypes have in common; prototypes are neither transposed nor doubled,
            # of which an export would hold a copy
            distances = prototypes.square().sum(1, keepdim=True) - 2 * (prototypes @ maps.to(prototypes.dtype).T)
        return prototypes[distances.argmin(0)].unflatten(1, features.shape[1:])

    def forward(self, features: Tensor) -> Tensor:
        """Residuals of feature maps ``(B, c, h, w)`` element by element, equation 1."""
        return (features - self.nearest(features)).abs()
