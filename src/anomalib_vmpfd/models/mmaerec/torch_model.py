# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""MMAERec as a torch model: memories of normal features and edges give the image back (figure 1).

Paper: Yang et al., "Industrial surface anomaly detection based on reconstruction with multiple memory enhancement
modules and image edge", Computer Engineering and Applications, 2024, doi:10.3778/j.issn.1002-8331.2406-0293. The
numbers of equations, tables and figures in this package are those of the paper.
"""

from collections.abc import Iterator

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn

from anomalib_vmpfd.anomaly.raw_map import RawMap
from anomalib_vmpfd.anomaly.scale import bounded
from anomalib_vmpfd.engine.arguments import check_choice
from anomalib_vmpfd.nn.grid import pixel_grid
from anomalib_vmpfd.nn.image_size import check_image_size
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor
from anomalib_vmpfd.nn.precision import full_float32

from .attention import ATTENTIONS
from .decoder import Decoder
from .edges import EdgeEncoder, edge_map
from .loss import reconstruction_terms
from .maps import colour_difference, structure_difference
from .memory import MemoryModule, entropy

Features = tuple[Tensor, ...]
LEVELS = 4
# edges and highlights that are never given back well are so in every image: a location is judged by itself almost alone
LOCATION_PRIOR = 1.0
MAPS_AT_ONCE = 16  # of normals that are calibrated on


class MmaerecModel(nn.Module):
    """A U-Net whose skip connections carry what memories recall of the image, and its edges.

    Args:
        image_size (tuple[int, int]): Height and width of the images in pixels.
        extractor (PatchDescriptor | None): Frozen features, a level for each memory, at strides 2, 4, 8 and so on;
            ``None`` leaves the memories out (table 5).
        num_items (int): Items ``N`` of every memory (figure 8).
        shrinkage (float): See :class:`MemoryModule`.
        edges (bool): Whether the edges take part (table 5).
        attention (str): A key of ``ATTENTIONS`` (table 6).
        base_width (int): Channels of the U-Net at stride 2; they double with the stride.
        l2 (float): Weight of the squared error in the loss, equation 6; 0 leaves a term out (table 8).
        theta (float): Weight of ``1 - SSIM``.
        alpha (float): Weight of the entropy of the memories' weights.
        mu (float): Weight of the colour difference, equation 14.

    Raises:
        ValueError: If an argument does not fit.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        extractor: PatchDescriptor | None,
        num_items: int = 30,
        shrinkage: float = 1.0,
        edges: bool = True,
        attention: str = "coordinate",
        base_width: int = 16,
        l2: float = 1.0,
        theta: float = 1.0,
        alpha: float = 2e-4,
        mu: float = 1e-3,
    ) -> None:
        super().__init__()
        check_choice("attention", attention, ATTENTIONS)
        channels = [] if extractor is None else [level.channels for level in extractor.levels]
        if not channels and not edges:
            msg = "Neither memories nor edges take part; give an extractor, which memories need, or edges=True."
            raise ValueError(msg)
        depth = max(LEVELS, len(channels)) if edges else len(channels)
        height, width = check_image_size(image_size, 2**depth)
        for index, level in enumerate([] if extractor is None else extractor.levels, start=1):
            if level.grid.shape != (height >> index, width >> index):
                msg = (
                    f"Level {index} of the extractor has {level.grid.shape[0]}x{level.grid.shape[1]} cells, not the "
                    f"{height >> index}x{width >> index} of stride {2**index}; give extractor_args.layers stages of "
                    "strides 2, 4, 8 and so on."
                )
                raise ValueError(msg)
        widths = [base_width << level for level in range(depth)]
        self.l2, self.theta, self.alpha = l2, theta, alpha
        self.mu = mu
        self.extractor = extractor
        self.memories = nn.ModuleList(MemoryModule(num_items, each, shrinkage) for each in channels)
        self.projections = nn.ModuleList(
            nn.Conv2d(each, wanted, kernel_size=1) for each, wanted in zip(channels, widths, strict=False)
        )
        self.edge_encoder = EdgeEncoder(widths) if edges else None
        self.attentions = nn.ModuleList(ATTENTIONS[attention](each) for each in widths)
        self.decoder = Decoder(widths)
        self.total = RawMap(pixel_grid((height, width)), (height, width), location_prior=LOCATION_PRIOR)
        # what light convolutions take half the time in on a CPU
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, features: Features | None = None) -> dict[str, Tensor] | InferenceBatch:
        """Compute the terms of the loss in training, scores and maps in evaluation.

        Args:
            images (Tensor): Images ``I`` in [0, 1] of shape ``(B, 3, H, W)``.
            features (Features | None): What the extractor's ``describe`` gave for them, where it is known.

        Returns:
            dict[str, Tensor] | InferenceBatch: In training the weighted terms of equation 6, scalars: ``l2``,
            ``dssim`` and ``entropy``. In evaluation ``pred_score`` of shape ``(B,)`` and ``anomaly_map`` of shape
            ``(B, 1, H, W)``, both in (0, 1).
        """
        if self.training:
            return self.loss(images, *self.reconstruct(images, features))
        return self.predictions(self.score(images, features))

    def reconstruct(self, images: Tensor, features: Features | None = None) -> tuple[Tensor, list[Tensor]]:
        """Reconstruct images from memories and edges; arguments as those of :meth:`forward`.

        Returns:
            tuple[Tensor, list[Tensor]]: Reconstructions ``I_r`` of shape ``(B, 3, H, W)``, and the weights ``w_hat`` of
            each memory, ``(B, N, h, w)``.
        """
        skips: list[Tensor] = []
        weights: list[Tensor] = []
        if self.edge_encoder is not None:
            edges = edge_map(images).contiguous(memory_format=torch.channels_last)
            skips = self.edge_encoder(edges)
        if self.extractor is not None:
            queries = self.extractor.normalize(features or self.extractor.describe(images))
            for level, (memory, project) in enumerate(zip(self.memories, self.projections, strict=True)):
                recalled = memory(queries[level].contiguous(memory_format=torch.channels_last))
                weights.append(recalled.weights)
                remembered = project(recalled.features)
                if self.edge_encoder is None:
                    skips.append(remembered)
                else:
                    skips[level] = skips[level] + remembered
        fused = [attention(skip) for attention, skip in zip(self.attentions, skips, strict=True)]
        return self.decoder(fused), weights

    def loss(self, images: Tensor, reconstructions: Tensor, weights: list[Tensor]) -> dict[str, Tensor]:
        """Weighted terms of equation 6, scalars by name."""
        found = reconstruction_terms(images, reconstructions)
        terms = {"l2": self.l2 * found["l2"], "dssim": self.theta * found["dssim"]}
        if weights:
            terms["entropy"] = self.alpha * torch.stack([entropy(each.float()) for each in weights]).sum()
        return terms

    def differences(self, images: Tensor, reconstructions: Tensor) -> tuple[Tensor, Tensor]:
        """``G_MSGM`` and ``mu G_c`` of shape ``(B, 1, H, W)``, equations 7 and 13."""
        with full_float32(images.device.type):
            images, reconstructions = images.float(), reconstructions.float().clamp(0, 1)
            colour = self.mu * colour_difference(images, reconstructions)
            return structure_difference(images, reconstructions), colour

    def score(self, images: Tensor, features: Features | None = None) -> Tensor:
        """Raw scores ``F_all`` of every pixel, ``(B, H, W)``, equation 14; arguments as those of :meth:`forward`."""
        reconstructions, _ = self.reconstruct(images, features)
        structure, colour = self.differences(images, reconstructions)
        return (structure + colour).squeeze(1)

    def predictions(self, scores: Tensor) -> InferenceBatch:
        """Scores and maps in (0, 1) of raw scores ``(B, H, W)``."""
        # what cannot be judged, as an image that is not finite, must not pass as normal
        seen = self.total.image_score(scores), self.total.anomaly_map(scores)
        score, anomaly_map = (bounded(each).nan_to_num(nan=1.0) for each in seen)
        return InferenceBatch(pred_score=score, anomaly_map=anomaly_map)

    @torch.no_grad()
    def calibrate(
        self, scores: Tensor, map_quantiles: tuple[float, float], learnt: Tensor | None = None
    ) -> Iterator[InferenceBatch]:
        """Set the scales of map and image score from normal images.

        Args:
            scores (Tensor): Raw scores of normal images as if they were new, ``(N, H, W)``.
            map_quantiles (tuple[float, float]): Quantiles that become 0 and 1 of the map.
            learnt (Tensor | None): Raw scores of learnt images, to tell what is usual at a location.

        Yields:
            InferenceBatch: Scores and maps of these images as if they were new, to take thresholds from.
        """
        image_scores = self.total.calibrate(scores, map_quantiles, learnt)
        for part, seen in zip(scores.split(MAPS_AT_ONCE), image_scores.split(MAPS_AT_ONCE), strict=True):
            yield InferenceBatch(pred_score=bounded(seen), anomaly_map=bounded(self.total.anomaly_map(part)))

    @torch.no_grad()
    def explain(self, images: Tensor) -> dict[str, Tensor]:
        """What the model saw.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            dict[str, Tensor]: ``edges`` and ``reconstruction``, images in [0, 1]; ``total``, ``(B, 1, H, W)``, with 0
            and 1 at the quantiles of normals, and its summands ``structure`` and ``colour`` in the same units, from
            zero; ``score``, ``(B,)``.
        """
        reconstructions, _ = self.reconstruct(images)
        structure, colour = self.differences(images, reconstructions)
        start, end = self.total.quantiles
        scale = (end - start).clamp_min(1e-6)
        scores = (structure + colour).squeeze(1)
        return {
            "edges": edge_map(images).expand_as(images),
            "reconstruction": reconstructions.clamp(0, 1),
            "structure": structure / scale,
            "colour": colour / scale,
            "total": self.total.anomaly_map(scores),
            "score": self.total.image_score(scores),
        }
