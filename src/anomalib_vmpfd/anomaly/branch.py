# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The interface of a branch: one anomaly map of an image, and what it learns for it."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Features(NamedTuple):
    """What the branches of a model look at; a field that no branch reads is ``None``.

    Attributes:
        images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.
        descriptors (Tensor): Normalised patch descriptors ``D`` of shape ``(B, C, h, w)``, equation 10.
        target (Tensor | None): What the encoder reads and a reconstruction gives back.
        encoded (Tensor | None): Features ``F`` of the encoder, ``(B, d, h', w')``, equation 9.
    """

    images: Tensor
    descriptors: Tensor
    target: Tensor | None = None
    encoded: Tensor | None = None


class Normals(Protocol):
    """Normal images to learn from, in batches, as often as a branch needs them."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __iter__(self) -> Iterator[tuple[Features, Tensor]]:
        """Batches of features, not encoded, and the numbers of their images, ``(B,)``, from 0."""
        ...

    def evenly(self, count: int) -> "Normals":
        """At most ``count`` of the images, evenly spaced; they keep their numbers."""
        ...


class Branch(nn.Module):
    """One anomaly map: raw scores in cells of its own, and how they become a map of the image.

    A subclass gives ``score`` and ``anomaly_map``, and what else it needs of the rest. Raw scores are a tuple of
    tensors whose first axis is the batch, so that those of several batches can be concatenated.
    """

    title = "Anomaly map"

    def fit(self, normals: Normals) -> None:
        """Learn what needs no gradient, as prototypes and components; by default nothing."""

    def score_left_out(self, normals: Normals, *, thresholds: bool) -> tuple[Tensor, ...] | None:  # noqa: PLR6301
        """Raw scores of images that :meth:`fit` saw, each as if it had not been there (leave one image out).

        Args:
            normals (Normals): The images of :meth:`fit`.
            thresholds (bool): Whether thresholds are taken from these scores, as nothing is held out.

        Returns:
            tuple[Tensor, ...] | None: Raw scores of the images, in order; ``None``, the default, where the branch knows
            no single image.
        """
        del normals, thresholds
        return None

    def loss(self, features: Features) -> dict[str, Tensor]:  # noqa: PLR6301
        """Terms of the loss, scalars with their weights, by name; by default none."""
        del features
        return {}

    def score(self, features: Features) -> tuple[Tensor, ...]:
        """Raw anomaly scores in the cells of the branch, higher is more anomalous."""
        raise NotImplementedError

    def anomaly_map(self, scores: tuple[Tensor, ...]) -> Tensor:
        """Anomaly map ``(B, 1, H, W)``, not normalised, of raw scores."""
        raise NotImplementedError

    @torch.no_grad()
    def calibrate(self, scores: tuple[Tensor, ...]) -> Tensor:
        """Learn the usual scores from normals that :meth:`fit` did not see.

        Args:
            scores (tuple[Tensor, ...]): Their raw scores.

        Returns:
            Tensor: Their maps ``(N, 1, H, W)``, as those of new images would be.
        """
        return self.anomaly_map(scores)

    def panels(self, features: Features) -> dict[str, Tensor]:  # noqa: PLR6301
        """Further pictures of what the branch saw, ``(B, C, H, W)`` in [0, 1], by name; by default none."""
        del features
        return {}
