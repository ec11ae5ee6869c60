# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The interface of a branch: raw maps of an image, and what it learns for them."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .raw_map import RawMap

Scores = tuple[Tensor, ...]


class Features(NamedTuple):
    """What the branches of a model look at; a field that no branch reads is ``None``.

    Attributes:
        images (Tensor | None): Images in [0, 1] of shape ``(B, 3, H, W)``.
        descriptors (tuple[Tensor, ...]): Normalised patch descriptors ``D`` of every level, finest first,
            ``(B, C, h, w)`` each, equation 10.
        target (Tensor | None): What the encoder reads and a reconstruction gives back.
        encoded (Tensor | None): Features ``F`` of the encoder, ``(B, d, h', w')``, equation 9.
    """

    images: Tensor | None
    descriptors: tuple[Tensor, ...]
    target: Tensor | None = None
    encoded: Tensor | None = None


class Normals(Protocol):
    """Normal images to learn from, in batches, as often as a branch needs them."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __iter__(self) -> Iterator[tuple[Features, Tensor]]:
        """Batches of features, not encoded and without images, and the numbers of their images, ``(B,)``, from 0."""
        ...

    def evenly(self, count: int) -> "Normals":
        """At most ``count`` of the images, evenly spaced; they keep their numbers."""
        ...


class Branch(nn.Module):
    """Raw scores in the cells of one map or more, and how these become a map and a score of the image.

    A subclass sets ``maps``, one for each of its raw scores, and gives ``score``; of the rest what it needs.

    Attributes:
        maps (nn.ModuleList): A :class:`RawMap` for each of the raw scores.
        title (str): Title of its map in pictures.
        leaves_one_out (bool): Whether :meth:`score_left_out` is there, so that no image need be held out.
        reads_encoder (bool): Whether it reads ``Features.encoded`` or ``Features.target``.
    """

    title = "Anomaly map"
    leaves_one_out = False
    reads_encoder = True
    maps: nn.ModuleList

    def fit(self, normals: Normals) -> None:
        """Learn what needs no gradient, as prototypes and components; by default nothing."""

    def score_left_out(self, normals: Normals) -> Scores:
        """Raw scores of the images of :meth:`fit`, in order, each as if it had not been there."""
        raise NotImplementedError

    def loss(self, features: Features) -> dict[str, Tensor]:  # noqa: PLR6301
        """Terms of the loss, scalars with their weights, by name; by default none."""
        del features
        return {}

    def score(self, features: Features) -> Scores:
        """Raw anomaly scores ``(B, h, w)`` in the cells of each of the maps, higher is more anomalous."""
        raise NotImplementedError

    def anomaly_map(self, scores: Scores) -> Tensor:
        """Weighted mean ``(B, 1, H, W)`` of the maps, with 0 and 1 at the quantiles of normals."""
        weighted = [each.weight * each.anomaly_map(seen) for each, seen in self._scored(scores)]
        return sum(weighted[1:], weighted[0]) / sum(each.weight for each in self._maps())

    def image_score(self, scores: Scores) -> Tensor:
        """Sum of the standardised maxima, ``(B,)``."""
        parts = [each.image_score(seen) for each, seen in self._scored(scores) if each.in_image_score]
        return sum(parts[1:], parts[0])

    @torch.no_grad()
    def calibrate(self, scores: Scores, map_quantiles: tuple[float, float]) -> Tensor:
        """Learn the usual scores of normals.

        Args:
            scores (Scores): Raw scores of normals as if they were new, ``(N, h, w)`` each.
            map_quantiles (tuple[float, float]): Quantiles that become 0 and 1 of the maps.

        Returns:
            Tensor: Their image scores as if they were new, ``(N,)``.
        """
        parts = [(each, each.calibrate(seen, map_quantiles)) for each, seen in self._scored(scores)]
        return torch.stack([score for each, score in parts if each.in_image_score]).sum(0)

    def panels(self, features: Features) -> dict[str, Tensor]:  # noqa: PLR6301
        """Further pictures of what the branch saw, ``(B, C, H, W)`` in [0, 1], by name; by default none."""
        del features
        return {}

    def _maps(self) -> list[RawMap]:
        return list(self.maps)

    def _scored(self, scores: Scores) -> Iterator[tuple[RawMap, Tensor]]:
        return zip(self._maps(), scores, strict=True)
