# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""PRN as a torch model: residuals to prototypes of normal images, from which a U-Net segments anomalies (figure 3).

Paper: Zhang et al., "Prototypical Residual Networks for Anomaly Detection and Localization", CVPR 2023,
https://arxiv.org/abs/2212.02031. The numbers of equations, tables and sections in this package are those of the paper.
"""

from collections.abc import Sequence

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.anomaly.scale import bounded
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor

from .attention import PARTS, MultiSizeAttention
from .decoder import UNetDecoder
from .fusion import MultiScaleFusion
from .loss import segmentation_terms
from .prototypes import MapPrototypes

TOP_PIXELS = 100  # section 4.1
Descriptors = Sequence[Tensor]


class PrnModel(nn.Module):
    """Prototypical residual network.

    Args:
        descriptor (PatchDescriptor): Frozen stages ``F_j``, a level each, finest first, each of half the size of the
            one before.
        image_size (tuple[int, int]): Height and width of the images in pixels.
        channels (Sequence[int] | None): Channels ``c_j`` that features and residuals are projected to; ``None`` keeps
            those of the descriptor, as the paper does.
        depth (int): Multi-size self-attentions one behind the other, ``N``.
        lambda_focal (float): Weight of the focal loss, equation 5.

    Raises:
        ValueError: If the stages do not halve their size, or the channels do not fit them.
    """

    def __init__(
        self,
        descriptor: PatchDescriptor,
        image_size: tuple[int, int],
        channels: Sequence[int] | None = None,
        depth: int = 3,
        lambda_focal: float = 5.0,
    ) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.image_size = tuple(image_size)
        self.lambda_focal = lambda_focal
        own = [level.channels for level in descriptor.levels]
        shapes = [level.grid.shape for level in descriptor.levels]
        _check_scales(shapes, self.image_size)
        widths = own if channels is None else list(channels)
        _check_channels(widths, own)
        self.prototypes = nn.ModuleList(MapPrototypes((c, *shape)) for c, shape in zip(own, shapes, strict=True))
        self.project_features = _projections(own, widths)
        self.project_residuals = _projections(own, widths)
        self.fuse_features = MultiScaleFusion(widths)
        self.fuse_residuals = MultiScaleFusion(widths)
        doubled = [2 * width for width in widths]
        self.attention = nn.ModuleList(nn.Sequential(*(MultiSizeAttention(c) for _ in range(depth))) for c in doubled)
        self.fuse_attended = MultiScaleFusion(doubled)
        self.decoder = UNetDecoder(doubled, stride=self.image_size[0] // shapes[0][0])

    def forward(
        self,
        images: Tensor,
        masks: Tensor | None = None,
        descriptors: Descriptors | None = None,
    ) -> dict[str, Tensor] | InferenceBatch:
        """Compute the terms of the loss in training, scores and maps in evaluation.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.
            masks (Tensor | None): Where they are anomalous, ``(B, 1, H, W)``; needed in training.
            descriptors (Descriptors | None): What :meth:`PatchDescriptor.describe` gave for them, where it is known.

        Returns:
            dict[str, Tensor] | InferenceBatch: In training the terms of equation 5, scalars. In evaluation
            ``pred_score`` of shape ``(B,)`` and ``anomaly_map`` of shape ``(B, 1, H, W)``, both in (0, 1).
        """
        features = self.descriptor.normalize(descriptors or self.descriptor.describe(images))
        logits = self.segment(features)
        if self.training:
            if masks is None:
                msg = "PRN learns from masks; give them in training."
                raise ValueError(msg)
            return segmentation_terms(logits, masks, self.lambda_focal)
        score, anomaly_map = (bounded(x).nan_to_num(nan=1.0) for x in (image_score(logits), logits.float()))
        return InferenceBatch(pred_score=score, anomaly_map=anomaly_map)

    def segment(self, features: Sequence[Tensor]) -> Tensor:
        """Logits of the anomaly score map ``M_o``, ``(B, 1, H, W)``, of normalised stages ``(B, C_j, h_j, w_j)``."""
        residuals = self.residuals(features)
        own = self.fuse_features([project(x) for project, x in zip(self.project_features, features, strict=True)])
        theirs = self.fuse_residuals([project(x) for project, x in zip(self.project_residuals, residuals, strict=True)])
        joined = [torch.cat(pair, 1) for pair in zip(own, theirs, strict=True)]
        attended = [attend(x) for attend, x in zip(self.attention, joined, strict=True)]
        return self.decoder(self.fuse_attended(attended), self.image_size)

    def residuals(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Residuals ``D_ij`` to the nearest prototype of each scale, equation 1."""
        return [prototypes(x) for prototypes, x in zip(self.prototypes, features, strict=True)]

    @torch.no_grad()
    def explain(self, images: Tensor) -> dict[str, Tensor]:
        """How far each scale lies from its nearest prototype, as the colours of one picture.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            dict[str, Tensor]: ``residual``, ``(B, 3, H, W)`` in [0, 1]: red is the finest scale, blue the coarsest;
            ``score``, ``(B,)``, the logit of the image score.
        """
        features = self.descriptor(images)
        # features have unit variance, so a residual of 1 is a usual one
        means = [residual.mean(1, keepdim=True) for residual in self.residuals(features)]
        pictures = [F.interpolate(x, self.image_size, mode="bilinear", align_corners=False) for x in means]
        return {"residual": (torch.cat(pictures, 1) / 2).clamp(0, 1), "score": image_score(self.segment(features))}


def image_score(logits: Tensor) -> Tensor:
    """Mean of the most anomalous pixels of the anomaly score map ``M_o`` of each image (section 3.5), as a logit.

    Args:
        logits (Tensor): Logits of ``M_o``, ``(B, 1, H, W)``.

    Returns:
        Tensor: Logits of the means, ``(B,)``.
    """
    pixels = logits.float().flatten(1)
    top = pixels.topk(min(TOP_PIXELS, pixels.shape[1])).values
    # by logarithms, as a mean that rounds to 1 has no logit
    mean, rest = (F.logsigmoid(signed).logsumexp(1) for signed in (top, -top))
    return mean - rest


def _projections(channels: Sequence[int], widths: Sequence[int]) -> nn.ModuleList:
    pairs = zip(channels, widths, strict=True)
    return nn.ModuleList(nn.Identity() if c == width else nn.Conv2d(c, width, 1) for c, width in pairs)


def _check_scales(shapes: Sequence[tuple[int, int]], image_size: tuple[int, ...]) -> None:
    stride = image_size[0] // shapes[0][0]
    strides = [stride * 2**j for j in range(len(shapes))]
    expected = [tuple(side // s for side in image_size) for s in strides]
    coarsest = strides[-1]
    if list(map(tuple, shapes)) != expected or any(side % coarsest for side in image_size):
        grids = ", ".join(f"{h}x{w}" for h, w in shapes)
        msg = (
            f"PRN needs stages each of half the size of the one before, but image_size {image_size[0]}x{image_size[1]} "
            f"gives {grids}; use multiples of {coarsest} and stages as those of strides 4, 8 and 16."
        )
        raise ValueError(msg)


def _check_channels(widths: Sequence[int], own: Sequence[int]) -> None:
    if len(widths) != len(own) or any(width < 1 or 2 * width % len(PARTS) for width in widths):
        msg = (
            f"channels={list(widths)} must be an even number for each of the {len(own)} scales, as a fourth of twice "
            "as many belongs to each size of patches."
        )
        raise ValueError(msg)
