# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""VMPFD-AD as a torch model: patch descriptor, ViM encoder, mixture density head and decoder.

Paper: Liu and Zhuang, "Industrial anomaly detection by combining visual Mamba and patch feature distribution", Journal
of Image and Graphics 30(10), 2025, https://doi.org/10.11834/jig.240594. The numbers of equations, tables and figures
in this package are those of the paper.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from anomalib.data import InferenceBatch
from einops import rearrange
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.components.calibration import bounded, quantiles
from anomalib_vmpfd.components.cnn_encoder import CnnEncoder
from anomalib_vmpfd.components.decoder import TransposedConvDecoder
from anomalib_vmpfd.components.mixture_density import MixtureDensityHead
from anomalib_vmpfd.components.patch_descriptor import PatchDescriptor
from anomalib_vmpfd.components.prototype_mixture import PrototypeMixtureHead
from anomalib_vmpfd.components.vision_mamba import VisionMambaEncoder

from .anomaly_map import AnomalyMapGenerator
from .loss import VmpfdAdLoss, reconstruction_terms

POSITION_CHANNELS = 16

Branches = Literal["both", "density", "reconstruction"]
Features = Literal["fused", "descriptor", "encoder"]


class VmpfdAdModel(nn.Module):
    """Two branches over one encoder (figure 1): the density of local features and the reconstruction of the image.

    Args:
        image_size (tuple[int, int]): Height and width of the images in pixels.
        descriptor (str): Patch descriptor, see :class:`PatchDescriptor`.
        descriptor_layers (Sequence[int | str] | None): Stages of a timm descriptor.
        grid (int | None): Cells of the local map along the shorter side; ``None`` keeps the descriptor's own grid.
        encoder (str): ``"vim"`` or, for table 5, ``"cnn"``.
        patch_size (int): Side of the encoder's patches in pixels.
        dim (int): Width ``d`` of the encoder.
        depth (int): Number of ViM blocks (figure 2).
        divide_directions (bool): Average the two scans of a ViM block instead of adding them up.
        branches (str): ``"both"``, ``"density"`` or ``"reconstruction"`` (table 6).
        features (str): Features of the density branch: ``"fused"``, ``"descriptor"`` or ``"encoder"`` (table 7).
        target (str): ``"self"`` models ``p(T | T)`` as equation 13 does; ``"descriptor"`` models the frozen descriptor
            given a narrow code of ``T``, which can neither be copied nor shrunk.
        bottleneck (int): Channels of that code.
        mixture (str): Means of the Gaussians: ``"prototypes"`` chosen among normal descriptors, see
            :class:`PrototypeMixtureHead`, or ``"predicted"`` by a network, equations 1 to 3.
        num_components (int): Gaussians ``K`` of the mixture.
        covariance (str): ``"diagonal"`` or ``"full"``, of predicted mixtures.
        beta (float): ``beta`` of equation 3.
        sigma_floor (float): Added to every predicted sigma.
        train_cells (int | None): Random cells of an image that the density learns from in a step; ``None``: all.
        lambda_mse (float): ``lambda_1`` of equation 8.
        map_weights (tuple[float, float]): Weights of LAM and GAM in TAM.
        smoothing (float): Standard deviation in pixels of the Gaussian over both maps.

    Raises:
        ValueError: If an argument is unknown or the image size does not fit the patches.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        descriptor: str = "timm/tf_efficientnet_lite2",
        descriptor_layers: Sequence[int | str] | None = None,
        grid: int | None = None,
        encoder: Literal["vim", "cnn"] = "vim",
        patch_size: int = 32,
        dim: int = 192,
        depth: int = 4,
        divide_directions: bool = False,
        branches: Branches = "both",
        features: Features = "fused",
        target: Literal["descriptor", "self"] = "descriptor",
        bottleneck: int = 8,
        mixture: Literal["prototypes", "predicted"] = "prototypes",
        num_components: int = 1024,
        covariance: Literal["diagonal", "full"] = "diagonal",
        beta: float = 1.0,
        sigma_floor: float = 0.05,
        train_cells: int | None = None,
        lambda_mse: float = 5.0,
        map_weights: tuple[float, float] = (0.75, 0.25),
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        _check_choice("encoder", encoder, ("vim", "cnn"))
        _check_choice("branches", branches, ("both", "density", "reconstruction"))
        _check_choice("features", features, ("fused", "descriptor", "encoder"))
        _check_choice("target", target, ("descriptor", "self"))
        _check_choice("mixture", mixture, ("prototypes", "predicted"))
        if target == "self" and mixture == "prototypes":
            msg = "mixture='prototypes' needs a target that stays where it is; give target='descriptor'."
            raise ValueError(msg)
        self.image_size = image_size
        self.features = features
        self.target = target
        self.train_cells = train_cells

        self.encoder: nn.Module | None = None
        if branches != "density" or features != "descriptor":
            self.encoder = (
                VisionMambaEncoder(self.image_size, patch_size, 3, dim, depth, divide_directions=divide_directions)
                if encoder == "vim"
                else CnnEncoder(self.image_size, patch_size, 3, dim)
            )
        self.decoder: nn.Module | None = None
        if branches != "density":
            self.decoder = TransposedConvDecoder(dim, scale=patch_size)

        # the descriptor gives the density branch its grid even where only the encoder's features are read
        self.descriptor = PatchDescriptor(descriptor, self.image_size, descriptor_layers, grid)
        self.density: nn.Module | None = None
        if branches != "reconstruction":
            self.adapter = nn.Conv2d(self.descriptor.channels, dim, 1) if features != "encoder" else None
            self.fusion = nn.Conv2d(2 * dim, dim, 1) if features == "fused" else nn.Identity()
            condition = dim
            if target == "descriptor":
                self.code = nn.Conv2d(dim, bottleneck, 1)
                position = build_sincos2d_pos_embed(list(self.descriptor.grid), POSITION_CHANNELS, temperature=100.0)
                position = rearrange(position, "(h w) c -> 1 c h w", h=self.descriptor.grid[0])
                self.register_buffer("position", position, persistent=False)
                condition = bottleneck + POSITION_CHANNELS
            described = self.descriptor.channels if target == "descriptor" else dim
            # equation 7 sums over the channels of y; their mean keeps the balance with the other losses for any y
            self._likelihood_dims = described if target == "descriptor" and mixture == "predicted" else 1
            if mixture == "prototypes":
                self.density = PrototypeMixtureHead(condition, described, num_components)
            else:
                self.density = MixtureDensityHead(
                    condition,
                    described,
                    num_components,
                    beta=beta,
                    sigma_floor=sigma_floor,
                    covariance=covariance,
                )
        self.loss = VmpfdAdLoss(lambda_mse)
        self.anomaly_map_generator = AnomalyMapGenerator(
            self.image_size,
            self.descriptor.grid,
            self.descriptor.geometry,
            weights=map_weights,
            sigma=smoothing,
        )

    def forward(self, images: Tensor, descriptors: Tensor | None = None) -> dict[str, Tensor] | InferenceBatch:
        """Compute the terms of the loss in training, scores and maps in evaluation.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.
            descriptors (Tensor | None): What :meth:`PatchDescriptor.describe` gave for them, where it is known.

        Returns:
            dict[str, Tensor] | InferenceBatch: In training the terms ``nll``, ``mse`` and ``ssim``, scalars. In
            evaluation ``pred_score`` of shape ``(B,)`` and ``anomaly_map`` of shape ``(B, 1, H, W)``, both in (0, 1).
        """
        if not self.training:
            return self.predictions(self.maps(*self.observe(images, descriptors)))
        encoded, reconstruction = self._encode(images)
        terms = {}
        if self.density is not None:
            x, y = self._cells(encoded, images, descriptors)
            terms["nll"] = self.density.loss(y, x).mean() / self._likelihood_dims
        if reconstruction is not None:
            terms |= reconstruction_terms(2 * images - 1, reconstruction)
        return terms

    def observe(self, images: Tensor, descriptors: Tensor | None = None) -> tuple[Tensor | None, Tensor | None]:
        """What both branches see before any calibration; ``None`` where a branch is off.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.
            descriptors (Tensor | None): What :meth:`PatchDescriptor.describe` gave for them, where it is known.

        Returns:
            tuple[Tensor | None, Tensor | None]: Scores of the cells, ``(B, h, w)``, equation 13, and the squared
            error of the reconstruction of each pixel, ``(B, 1, H, W)``.
        """
        encoded, reconstruction = self._encode(images)
        scores = error = None
        if self.density is not None:
            x, y = self._cells(encoded, images, descriptors)
            scores = self.density.score(y, x)
        if reconstruction is not None:
            error = (2 * images - 1 - reconstruction).square().mean(1, keepdim=True)
        return scores, error

    def maps(self, scores: Tensor | None, error: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """LAM and GAM, ``(B, 1, H, W)`` each, from what :meth:`observe` saw."""
        generator = self.anomaly_map_generator
        return (
            None if scores is None else generator.local_map(scores),
            None if error is None else generator.global_map(error),
        )

    def predictions(self, maps: tuple[Tensor | None, Tensor | None]) -> InferenceBatch:
        """Fuse LAM and GAM to bounded maps and scores, equations 17, 20 and 21."""
        anomaly_map = bounded(self.anomaly_map_generator(maps))
        return InferenceBatch(pred_score=anomaly_map.amax((1, 2, 3)), anomaly_map=anomaly_map)

    @torch.no_grad()
    def calibrate(
        self,
        seen: Sequence[tuple[Tensor | None, Tensor | None]],
        map_quantiles: tuple[float, float],
        cell_calibration: bool,
    ) -> InferenceBatch:
        """Set the scales of both maps from normal images, equations 15, 16, 18 and 19.

        Args:
            seen (Sequence[tuple[Tensor | None, Tensor | None]]): What :meth:`observe` saw in batches of them.
            map_quantiles (tuple[float, float]): Quantiles that become 0 and 1.
            cell_calibration (bool): Judge every cell by how it behaves on these images first.

        Returns:
            InferenceBatch: Scores and maps of these images as if they were new, to take thresholds from.
        """
        generator = self.anomaly_map_generator
        scores, errors = (None if parts[0] is None else torch.cat(parts) for parts in zip(*seen, strict=True))
        if scores is not None and cell_calibration:
            maps = (generator.upsample(generator.calibrate_cells(scores)), self.maps(None, errors)[1])
        else:
            maps = self.maps(scores, errors)
        for branch, branch_maps in enumerate(maps):
            if branch_maps is not None:
                generator.calibrate(branch, quantiles([branch_maps], map_quantiles))
        return self.predictions(maps)

    @torch.no_grad()
    def explain(self, images: Tensor) -> dict[str, Tensor]:
        """What each branch saw.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            dict[str, Tensor]: ``lam`` and ``gam``, calibrated, and ``tam``, all ``(B, 1, H, W)`` with 0 and 1 at the
            calibration quantiles; ``reconstruction`` in [0, 1], ``(B, 3, H, W)``; ``score``, ``(B,)``, equation 21.
            Branches that are switched off are missing.
        """
        maps = self.maps(*self.observe(images))
        tam = self.anomaly_map_generator(maps)
        seen = {"tam": tam, "score": tam.amax((1, 2, 3))}
        for branch, (name, raw) in enumerate(zip(("lam", "gam"), maps, strict=True)):
            if raw is not None:
                seen[name] = self.anomaly_map_generator.normalized(branch, raw)
        reconstruction = self._encode(images)[1]
        if reconstruction is not None:
            seen["reconstruction"] = (reconstruction + 1) / 2
        return seen

    def _encode(self, images: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Features ``F`` of equation 9 and the reconstruction in [-1, 1], ``(B, 3, H, W)``."""
        encoded = None if self.encoder is None else self.encoder(2 * images - 1)
        return encoded, None if self.decoder is None or encoded is None else self.decoder(encoded)

    def _cells(self, encoded: Tensor | None, images: Tensor, descriptors: Tensor | None) -> tuple[Tensor, Tensor]:
        """Condition ``x`` and target ``y`` of the density in every cell, from ``T`` of equation 11."""
        # every layer of this branch is pointwise, so a training step can do with a sample of the cells
        cells = self.descriptor.grid[0] * self.descriptor.grid[1]
        sample = torch.randperm(cells)[: self.train_cells] if self.training and self.train_cells else None
        parts = []
        described = None
        if self.features != "descriptor":
            upsampled = F.interpolate(encoded, self.descriptor.grid, mode="bilinear", align_corners=False)
            parts.append(_sampled(upsampled, sample))
        if self.adapter is not None or self.target == "descriptor":
            descriptors = self.descriptor.describe(images) if descriptors is None else descriptors
            described = _sampled(self.descriptor.normalize(descriptors), sample)
        if self.adapter is not None:
            parts.append(self.adapter(described))
        fused = self.fusion(torch.cat(parts, dim=1))
        if self.target == "self":
            return fused, fused
        position = _sampled(self.position, sample).expand(fused.shape[0], -1, -1, -1)
        return torch.cat([self.code(fused), position], dim=1), described


def _sampled(maps: Tensor, sample: Tensor | None) -> Tensor:
    """Keep the sampled cells of ``(B, C, h, w)`` as ``(B, C, n, 1)``; all of them without a sample."""
    return maps if sample is None else maps.flatten(2)[..., sample, None]


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        msg = f"Unknown {name}={value!r}; choose one of {', '.join(map(repr, choices))}."
        raise ValueError(msg)
