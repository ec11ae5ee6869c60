# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""VMPFD-AD as a torch model: patch descriptor, ViM encoder, a density and a reconstruction branch (figure 1).

Paper: Liu and Zhuang, "Industrial anomaly detection by combining visual Mamba and patch feature distribution", Journal
of Image and Graphics 30(10), 2025, https://doi.org/10.11834/jig.240594. The numbers of equations, tables and figures
in this package are those of the paper.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn

from anomalib_vmpfd.anomaly.branch import Branch, Features, Scores
from anomalib_vmpfd.anomaly.scale import bounded
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor

from .encoder import TokenEncoder

RawScores = Mapping[str, Scores]
Descriptors = tuple[Tensor, ...]
ImageScore = Literal["branches", "map"]
MAPS_AT_ONCE = 16  # of normals that are calibrated on


class VmpfdAdModel(nn.Module):
    """Two branches over one encoder: the density of local features and the reconstruction of the image.

    Args:
        descriptor (PatchDescriptor): Frozen patch descriptor ``D``, equation 10.
        encoder (TokenEncoder | None): Encoder ``F``, equation 9; ``None`` where no branch reads it.
        density (Branch | None): Local anomaly map LAM, equation 14; ``None`` leaves it out (table 6).
        reconstruction (Branch | None): Global anomaly map GAM, equation 18; ``None`` leaves it out (table 6).
        map_weights (tuple[float, float]): Weights of LAM and GAM in TAM.
        image_score (str): ``"map"``, the maximum of TAM (equation 21), or ``"branches"``, the sum of the standardised
            maxima of each branch's raw maps: what is usual for an image need not be what is usual for a pixel.
    """

    def __init__(
        self,
        descriptor: PatchDescriptor,
        encoder: TokenEncoder | None,
        density: Branch | None,
        reconstruction: Branch | None,
        map_weights: tuple[float, float] = (0.5, 0.5),
        image_score: ImageScore = "branches",
    ) -> None:
        super().__init__()
        if image_score not in {"branches", "map"}:
            msg = f"Unknown image_score={image_score!r}; choose 'branches' or 'map'."
            raise ValueError(msg)
        self.descriptor = descriptor
        self.encoder = encoder
        self.density = density
        self.reconstruction = reconstruction
        self.map_weights = tuple(map_weights)
        self.image_score = image_score

    @property
    def branches(self) -> dict[str, Branch]:
        """The branches that are there, by the paper's names of their maps."""
        named = (("lam", self.density), ("gam", self.reconstruction))
        return {name: branch for name, branch in named if branch is not None}

    @property
    def needs_descriptors(self) -> bool:
        """Whether anything here reads the frozen descriptor."""
        return self.density is not None or self.encoder is None or self.encoder.reads == "descriptors"

    @property
    def leaves_one_out(self) -> bool:
        """Whether every branch can judge an image that it learnt as if it were new, so that none need be held out."""
        return all(branch.leaves_one_out for branch in self.branches.values())

    def features(self, images: Tensor | None, descriptors: Descriptors | None = None, encode: bool = True) -> Features:
        """What the branches look at.

        Args:
            images (Tensor | None): Images in [0, 1] of shape ``(B, 3, H, W)``; not needed where descriptors are given
                and no pixel is encoded.
            descriptors (Descriptors | None): What :meth:`PatchDescriptor.describe` gave for them, where it is known.
            encode (bool): Run the encoder, too.

        Returns:
            Features: Descriptors, the encoder's target and its features.
        """
        normalized: Descriptors = ()
        if self.needs_descriptors:
            normalized = self.descriptor.normalize(descriptors or self.descriptor.describe(images))
        readable = self.encoder is not None and (images is not None or self.encoder.reads == "descriptors")
        target = self.encoder.target(images, normalized) if self.encoder is not None and readable else None
        encoded = self.encoder(target) if self.encoder is not None and encode else None
        return Features(images, normalized, target, encoded)

    def forward(self, images: Tensor, descriptors: Descriptors | None = None) -> dict[str, Tensor] | InferenceBatch:
        """Compute the terms of the loss in training, scores and maps in evaluation.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.
            descriptors (Descriptors | None): What :meth:`PatchDescriptor.describe` gave for them, where it is known.

        Returns:
            dict[str, Tensor] | InferenceBatch: In training the weighted terms of equation 8, scalars: ``nll``, ``mse``
            and ``dssim``. In evaluation ``pred_score`` of shape ``(B,)`` and ``anomaly_map`` of shape
            ``(B, 1, H, W)``, both in (0, 1).
        """
        if self.training:
            features = self.features(images, descriptors)
            terms = [branch.loss(features) for branch in self.branches.values()]
            return {name: term for each in terms for name, term in each.items()}
        scores = self.score(images, descriptors)
        tam = self.total_map(self.maps(scores))
        # what cannot be judged, as an image that is not finite, must not pass as normal
        score, anomaly_map = (
            bounded(seen).nan_to_num(nan=1.0) for seen in (self.total_score(self.image_scores(scores), tam), tam)
        )
        return InferenceBatch(pred_score=score, anomaly_map=anomaly_map)

    def score(self, images: Tensor, descriptors: Descriptors | None = None) -> RawScores:
        """Raw scores of every branch, before any calibration; arguments as those of :meth:`forward`."""
        features = self.features(images, descriptors)
        return {name: branch.score(features) for name, branch in self.branches.items()}

    def maps(self, scores: RawScores) -> dict[str, Tensor]:
        """LAM and GAM, ``(B, 1, H, W)`` each, with 0 and 1 at the quantiles of normals."""
        return {name: branch.anomaly_map(scores[name]) for name, branch in self.branches.items()}

    def image_scores(self, scores: RawScores) -> list[Tensor]:
        """Image scores of the branches, ``(B,)`` each."""
        return [branch.image_score(scores[name]) for name, branch in self.branches.items()]

    def total_map(self, maps: Mapping[str, Tensor]) -> Tensor:
        """TAM, the weighted sum of LAM and GAM, ``(B, 1, H, W)``, equations 17 and 20."""
        if len(maps) == 1:
            return next(iter(maps.values()))
        return self.map_weights[0] * maps["lam"] + self.map_weights[1] * maps["gam"]

    def total_score(self, image_scores: list[Tensor], tam: Tensor) -> Tensor:
        """Image score ``(B,)``, equation 21 or the sum of the branches'."""
        return sum(image_scores[1:], image_scores[0]) if self.image_score == "branches" else tam.amax((1, 2, 3))

    @torch.no_grad()
    def calibrate(self, scores: RawScores, map_quantiles: tuple[float, float]) -> Iterator[InferenceBatch]:
        """Set the scales of maps and image scores from normal images, equations 15, 16, 18 and 19.

        Args:
            scores (RawScores): Raw scores of these images as if they were new.
            map_quantiles (tuple[float, float]): Quantiles that become 0 and 1.

        Yields:
            InferenceBatch: Scores and maps of these images as if they were new, to take thresholds from.
        """
        left_out = [branch.calibrate(scores[name], map_quantiles) for name, branch in self.branches.items()]
        for start in range(0, len(left_out[0]), MAPS_AT_ONCE):
            part = slice(start, start + MAPS_AT_ONCE)
            tam = self.total_map(self.maps({name: tuple(s[part] for s in each) for name, each in scores.items()}))
            score = self.total_score([each[part] for each in left_out], tam)
            yield InferenceBatch(pred_score=bounded(score), anomaly_map=bounded(tam))

    @torch.no_grad()
    def explain(self, images: Tensor) -> dict[str, Tensor]:
        """What each branch saw.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            dict[str, Tensor]: ``lam``, ``gam`` and ``tam``, ``(B, 1, H, W)``, with 0 and 1 at the quantiles of normals;
            ``score``, ``(B,)``; the panels of the branches, as ``reconstruction``.
        """
        features = self.features(images)
        scores = {name: branch.score(features) for name, branch in self.branches.items()}
        maps = self.maps(scores)
        panels = {name: picture for each in self.branches.values() for name, picture in each.panels(features).items()}
        tam = self.total_map(maps)
        return {**maps, **panels, "tam": tam, "score": self.total_score(self.image_scores(scores), tam)}
