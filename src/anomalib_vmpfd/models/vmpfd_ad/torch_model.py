# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""VMPFD-AD as a torch model: patch descriptor, ViM encoder, a density and a reconstruction branch (figure 1).

Paper: Liu and Zhuang, "Industrial anomaly detection by combining visual Mamba and patch feature distribution", Journal
of Image and Graphics 30(10), 2025, https://doi.org/10.11834/jig.240594. The numbers of equations, tables and figures
in this package are those of the paper.
"""

from collections.abc import Mapping, Sequence

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn

from anomalib_vmpfd.anomaly.branch import Branch, Features
from anomalib_vmpfd.anomaly.fusion import QuantileFusion
from anomalib_vmpfd.anomaly.scale import bounded, quantiles
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor

from .encoder import TokenEncoder

RawScores = Mapping[str, tuple[Tensor, ...]]


class VmpfdAdModel(nn.Module):
    """Two branches over one encoder: the density of local features and the reconstruction of the image.

    Args:
        descriptor (PatchDescriptor): Frozen patch descriptor ``D``, equation 10.
        encoder (TokenEncoder | None): Encoder ``F``, equation 9; ``None`` where no branch reads it.
        density (Branch | None): Local anomaly map LAM, equation 14; ``None`` leaves it out (table 6).
        reconstruction (Branch | None): Global anomaly map GAM, equation 18; ``None`` leaves it out (table 6).
        map_weights (tuple[float, float]): Weights of LAM and GAM in TAM.
    """

    def __init__(
        self,
        descriptor: PatchDescriptor,
        encoder: TokenEncoder | None,
        density: Branch | None,
        reconstruction: Branch | None,
        map_weights: tuple[float, float] = (0.5, 0.5),
    ) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.encoder = encoder
        self.density = density
        self.reconstruction = reconstruction
        self.fusion = QuantileFusion(map_weights if density and reconstruction else (1.0,))

    @property
    def branches(self) -> dict[str, Branch]:
        """The branches that are there, by the paper's names of their maps."""
        named = {"lam": self.density, "gam": self.reconstruction}
        return {name: branch for name, branch in named.items() if branch is not None}

    @property
    def needs_descriptors(self) -> bool:
        """Whether anything here reads the frozen descriptor."""
        return self.density is not None or (self.encoder is not None and self.encoder.reads == "descriptors")

    def features(self, images: Tensor, descriptors: Tensor | None = None, encode: bool = True) -> Features:
        """What the branches look at.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.
            descriptors (Tensor | None): What :meth:`PatchDescriptor.describe` gave for them, where it is known.
            encode (bool): Run the encoder, too.

        Returns:
            Features: Descriptors, the encoder's target and its features.
        """
        if self.needs_descriptors:
            descriptors = self.descriptor.describe(images) if descriptors is None else descriptors
            descriptors = self.descriptor.normalize(descriptors)
        target = None if self.encoder is None else self.encoder.target(images, descriptors)
        encoded = self.encoder(target) if self.encoder is not None and encode else None
        return Features(images, descriptors, target, encoded)

    def forward(self, images: Tensor, descriptors: Tensor | None = None) -> dict[str, Tensor] | InferenceBatch:
        """Compute the terms of the loss in training, scores and maps in evaluation.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.
            descriptors (Tensor | None): What :meth:`PatchDescriptor.describe` gave for them, where it is known.

        Returns:
            dict[str, Tensor] | InferenceBatch: In training the weighted terms of equation 8, scalars: ``nll``, ``mse``
            and ``dssim``. In evaluation ``pred_score`` of shape ``(B,)`` and ``anomaly_map`` of shape
            ``(B, 1, H, W)``, both in (0, 1).
        """
        if not self.training:
            scores = self.score(images, descriptors)
            return self.predictions([branch.anomaly_map(scores[name]) for name, branch in self.branches.items()])
        features = self.features(images, descriptors)
        terms = [branch.loss(features) for branch in self.branches.values()]
        return {name: term for each in terms for name, term in each.items()}

    def score(self, images: Tensor, descriptors: Tensor | None = None) -> RawScores:
        """Raw scores of every branch, before any calibration; arguments as those of :meth:`forward`."""
        features = self.features(images, descriptors)
        return {name: branch.score(features) for name, branch in self.branches.items()}

    def predictions(self, maps: Sequence[Tensor]) -> InferenceBatch:
        """Fuse LAM and GAM to bounded maps and scores, equations 17, 20 and 21."""
        # what cannot be judged, as an image that is not finite, must not pass as normal
        anomaly_map = bounded(self.fusion(maps)).nan_to_num(nan=1.0)
        return InferenceBatch(pred_score=anomaly_map.amax((1, 2, 3)), anomaly_map=anomaly_map)

    @torch.no_grad()
    def calibrate(self, batches: Sequence[RawScores], map_quantiles: tuple[float, float]) -> InferenceBatch:
        """Set the scales of both maps from normal images, equations 15, 16, 18 and 19.

        Args:
            batches (Sequence[RawScores]): Raw scores of these images, in batches.
            map_quantiles (tuple[float, float]): Quantiles that become 0 and 1.

        Returns:
            InferenceBatch: Scores and maps of these images as if they were new, to take thresholds from.
        """
        maps = []
        for index, (name, branch) in enumerate(self.branches.items()):
            scores = tuple(torch.cat(parts) for parts in zip(*(batch[name] for batch in batches), strict=True))
            maps.append(branch.calibrate(scores))
            self.fusion.calibrate(index, quantiles([maps[-1]], map_quantiles))
        return self.predictions(maps)

    @torch.no_grad()
    def explain(self, images: Tensor) -> dict[str, Tensor]:
        """What each branch saw.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            dict[str, Tensor]: ``lam`` and ``gam``, calibrated, and ``tam``, all ``(B, 1, H, W)`` with 0 and 1 at the
            calibration quantiles; ``score``, ``(B,)``, equation 21; the panels of the branches, as ``reconstruction``
            in [0, 1], ``(B, 3, H, W)``. Those of a branch that is left out are missing.
        """
        features = self.features(images)
        seen: dict[str, Tensor] = {}
        maps = []
        for index, (name, branch) in enumerate(self.branches.items()):
            maps.append(branch.anomaly_map(branch.score(features)))
            seen |= {name: self.fusion.normalize(index, maps[-1]), **branch.panels(features)}
        tam = self.fusion(maps)
        return seen | {"tam": tam, "score": tam.amax((1, 2, 3))}
