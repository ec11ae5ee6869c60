# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""VMPFD-AD as a torch model: patch descriptor, ViM encoder, mixture density head and decoder.

Paper: Liu and Zhuang, "Industrial anomaly detection by combining visual Mamba and patch feature distribution", Journal
of Image and Graphics 30(10), 2025, https://doi.org/10.11834/jig.240594. The numbers of equations, tables and figures
in this package are those of the paper.
"""

from collections.abc import Iterable, Sequence
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
from anomalib_vmpfd.components.descriptor_decoder import DescriptorDecoder
from anomalib_vmpfd.components.mixture_density import MixtureDensityHead
from anomalib_vmpfd.components.patch_descriptor import PatchDescriptor
from anomalib_vmpfd.components.prototype_mixture import PrototypeMixtureHead
from anomalib_vmpfd.components.vision_mamba import VisionMambaEncoder, check_image_size

from .anomaly_map import AnomalyMapGenerator, CellMap, PlaceStatistics
from .loss import VmpfdAdLoss, reconstruction_terms

POSITION_CHANNELS = 16
# cells of normal images among which the prototypes are chosen: twice as many change little and cost twice the time
PROTOTYPE_CELLS = 40_000

Branches = Literal["both", "density", "reconstruction"]
Features = Literal["fused", "descriptor", "encoder"]
Reconstruct = Literal["descriptors", "pixels"]


class VmpfdAdModel(nn.Module):
    """Two branches over one encoder (figure 1): the density of local features and the reconstruction of the image.

    Args:
        image_size (tuple[int, int]): Height and width of the images in pixels.
        descriptor (str): Patch descriptor, see :class:`PatchDescriptor`.
        descriptor_layers (Sequence[int | str] | None): Stages of a timm descriptor.
        grid (int | None): Cells of the local map along the shorter side; ``None`` takes the descriptor's.
        scales (Sequence[int]): Cells along the side of a square that prototypes stand for; a set of prototypes each.
        encoder (str): ``"vim"`` or, for table 5, ``"cnn"``.
        reconstruct (str): What the encoder reads and the decoder gives back: ``"descriptors"``, averaged to a token
            each, or the ``"pixels"`` of the paper.
        patch_size (int): Side of the encoder's patches in pixels, one token each.
        dim (int): Width ``d`` of the encoder.
        depth (int): Number of ViM blocks (figure 2).
        divide_directions (bool): Average the two scans of a ViM block instead of adding them up.
        code (int): Length of the code of a whole image that descriptors are reconstructed from.
        branches (str): ``"both"``, ``"density"`` or ``"reconstruction"`` (table 6).
        features (str): What a predicted mixture depends on: ``"fused"``, ``"descriptor"`` or ``"encoder"`` features
            (table 7).
        target (str): What a predicted mixture models: ``"self"``: ``p(T | T)`` as equation 13; ``"descriptor"``: the
            frozen descriptor given a narrow code of ``T``, which can neither be copied nor shrunk.
        bottleneck (int): Channels of that code.
        mixture (str): ``"prototypes"``: equal Gaussians around normal descriptors, see :class:`PrototypeMixtureHead`;
            ``"predicted"``: Gaussians that a network predicts, equations 1 to 3.
        num_components (int | None): Gaussians ``K`` of a mixture; ``None``: 8,192 prototypes or 10 predicted ones.
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
        scales: Sequence[int] = (1, 2),
        encoder: Literal["vim", "cnn"] = "vim",
        reconstruct: Reconstruct = "descriptors",
        patch_size: int = 32,
        dim: int = 128,
        depth: int = 2,
        divide_directions: bool = False,
        code: int = 64,
        branches: Branches = "both",
        features: Features = "fused",
        target: Literal["descriptor", "self"] = "descriptor",
        bottleneck: int = 8,
        mixture: Literal["prototypes", "predicted"] = "prototypes",
        num_components: int | None = None,
        covariance: Literal["diagonal", "full"] = "diagonal",
        beta: float = 1.0,
        sigma_floor: float = 0.05,
        train_cells: int | None = None,
        lambda_mse: float = 5.0,
        map_weights: tuple[float, float] = (0.5, 0.5),
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        _check_choice("encoder", encoder, ("vim", "cnn"))
        _check_choice("reconstruct", reconstruct, ("descriptors", "pixels"))
        _check_choice("branches", branches, ("both", "density", "reconstruction"))
        _check_choice("features", features, ("fused", "descriptor", "encoder"))
        _check_choice("target", target, ("descriptor", "self"))
        _check_choice("mixture", mixture, ("prototypes", "predicted"))
        if mixture == "prototypes" and (target == "self" or features != "fused"):
            msg = "target and features belong to mixture='predicted'; give that, or leave both at their defaults."
            raise ValueError(msg)
        self.image_size = image_size
        self.features = features
        self.target = target
        self.train_cells = train_cells

        # the descriptor gives the density branch its grid even where only the encoder's features are read
        self.descriptor = PatchDescriptor(descriptor, self.image_size, descriptor_layers, grid)
        self.reconstructs_pixels = reconstruct == "pixels"
        self.encoder: nn.Module | None = None
        self.decoder: nn.Module | None = None
        if branches != "density" or (mixture == "predicted" and features != "descriptor"):
            height, width = check_image_size(image_size, patch_size)
            self.tokens = (height // patch_size, width // patch_size)
            size, patch, channels = (
                (self.image_size, patch_size, 3)
                if self.reconstructs_pixels
                else (self.tokens, 1, self.descriptor.channels)
            )
            self.encoder = (
                VisionMambaEncoder(size, patch, channels, dim, depth, divide_directions=divide_directions)
                if encoder == "vim"
                else CnnEncoder(size, patch, channels, dim)
            )
        if branches != "density":
            self.decoder = (
                TransposedConvDecoder(dim, scale=patch_size)
                if self.reconstructs_pixels
                else DescriptorDecoder(dim, self.descriptor.channels, self.tokens, code)
            )

        self.density: MixtureDensityHead | None = None
        self.prototypes = nn.ModuleList()
        self.scales: tuple[int, ...] = (1,)
        if branches != "reconstruction" and mixture == "prototypes":
            self.scales = _checked_scales(scales, self.descriptor.grid)
            self.prototypes.extend(
                PrototypeMixtureHead(self.descriptor.channels, num_components or 8192) for _ in self.scales
            )
        elif branches != "reconstruction":
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
            self._likelihood_dims = described if target == "descriptor" else 1
            self.density = MixtureDensityHead(
                condition,
                described,
                num_components or 10,
                beta=beta,
                sigma_floor=sigma_floor,
                covariance=covariance,
            )
        self.loss = VmpfdAdLoss(lambda_mse)
        self.local_cells = nn.ModuleList(
            CellMap(
                self.image_size,
                (self.descriptor.grid[0] // scale, self.descriptor.grid[1] // scale),
                self.descriptor.geometry.pooled(scale),
                smoothing,
            )
            for scale in self.scales
        )
        if self.decoder is not None and not self.reconstructs_pixels:
            geometry = self.descriptor.geometry.pooled(self.descriptor.grid[0] / self.tokens[0])
            self.global_places = PlaceStatistics(self.tokens)
            self.global_cells = CellMap(self.image_size, self.tokens, geometry, smoothing)
        self.anomaly_map_generator = AnomalyMapGenerator(map_weights, smoothing)

    @property
    def needs_descriptors(self) -> bool:
        """Whether anything here reads the frozen descriptor."""
        return bool(self.density or self.prototypes) or not self.reconstructs_pixels

    @torch.no_grad()
    def fit_normals(self, described: Iterable[Tensor], images: int) -> None:
        """Learn what is counted and not trained: channel statistics, prototypes and principal components.

        Args:
            described (Iterable[Tensor]): Batches of what :meth:`PatchDescriptor.describe` gives for normal images.
            images (int): Number of these images.
        """
        cells: list[list[Tensor]] = [[] for _ in self.prototypes]
        sources: list[list[int]] = [[] for _ in self.prototypes]
        tokens: list[Tensor] = []
        per_image = -(-PROTOTYPE_CELLS // images)

        def watched() -> Iterable[Tensor]:
            number = 0
            for batch in described:
                # drawn image by image: the same cells in batches of any size
                for image in batch:
                    for drawn, source, scale in zip(cells, sources, self.scales, strict=False):
                        values = F.avg_pool2d(image, scale).flatten(1)
                        drawn.append(values[:, torch.randperm(values.shape[1])[:per_image]])
                        source.extend([number] * drawn[-1].shape[1])
                    number += 1
                if isinstance(self.decoder, DescriptorDecoder):
                    tokens.append(F.adaptive_avg_pool2d(batch, self.tokens))
                yield batch

        self.descriptor.fit_statistics(watched())
        for head, drawn, source in zip(self.prototypes, cells, sources, strict=True):
            pool = self.descriptor.normalize(torch.cat(drawn, dim=1)[None, ..., None])
            head.fit_prototypes(rearrange(pool, "1 c n 1 -> n c"), torch.tensor(source, device=pool.device))
        if isinstance(self.decoder, DescriptorDecoder):
            self.decoder.fit_components(self.descriptor.normalize(torch.cat(tokens)))

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
        normalized, encoded, target, reconstruction = self._encode(images, descriptors)
        terms = {}
        if self.density is not None:
            x, y = self._cells(encoded, normalized)
            terms["nll"] = self.density.loss(y, x).mean() / self._likelihood_dims
        if reconstruction is not None and self.reconstructs_pixels:
            terms |= reconstruction_terms(target, reconstruction)
        elif reconstruction is not None:
            terms["mse"] = F.mse_loss(reconstruction, target)
        return terms

    def observe(self, images: Tensor, descriptors: Tensor | None = None) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """What both branches see before any calibration.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.
            descriptors (Tensor | None): What :meth:`PatchDescriptor.describe` gave for them, where it is known.

        Returns:
            tuple[tuple[Tensor, ...], Tensor | None]: Scores of the cells of each scale, ``(B, h, w)``, equation 13, and
            the error of the reconstruction: squared in each pixel, ``(B, 1, H, W)``, or root mean square in each token,
            ``(B, h', w')``. Of a branch that is off there are no scores or no error.
        """
        return self._judge(*self._encode(images, descriptors))

    @torch.no_grad()
    def observe_learnt(self, learnt: Iterable[tuple[Tensor, Tensor]], cell_calibration: bool) -> tuple[Tensor, ...]:
        """Judge images that prototypes were taken from, each by the prototypes of the others, as if they were new.

        Args:
            learnt (Iterable[tuple[Tensor, Tensor]]): Batches of what :meth:`PatchDescriptor.describe` gives for them
                and of their places among the images of :meth:`fit_normals`, ``(B,)``.
            cell_calibration (bool): Learn from them first how far normals stray around each prototype.

        Returns:
            tuple[Tensor, ...]: Scores of the cells of each scale, ``(M, h, w)``; none where there are no prototypes.
        """
        seen: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.prototypes]
        for described, numbers in learnt:
            normalized = self.descriptor.normalize(described)
            for parts, head, scale in zip(seen, self.prototypes, self.scales, strict=False):
                parts.append(head.nearest(F.avg_pool2d(normalized, scale), numbers.to(normalized.device)))
        scores = []
        for head, parts in zip(self.prototypes, seen, strict=True):
            distances, nearest = map(torch.cat, zip(*parts, strict=True))
            scores.append(head.fit_spreads(distances, nearest) if cell_calibration else distances)
        return tuple(scores)

    def _judge(
        self,
        normalized: Tensor | None,
        encoded: Tensor | None,
        target: Tensor | None,
        reconstruction: Tensor | None,
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        scores = tuple(
            head.score(F.avg_pool2d(normalized, scale))
            for head, scale in zip(self.prototypes, self.scales, strict=False)
        )
        error = None
        if self.density is not None:
            x, y = self._cells(encoded, normalized)
            scores = (self.density.score(y, x),)
        if reconstruction is not None:
            squared = (target - reconstruction).square().mean(1, keepdim=True)
            error = squared if self.reconstructs_pixels else squared[:, 0].sqrt()
        return scores, error

    def maps(self, scores: Sequence[Tensor], error: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """LAM and GAM, ``(B, 1, H, W)`` each, from what :meth:`observe` saw; ``None`` for a branch that is off."""
        lam = _mean([cells(seen) for cells, seen in zip(self.local_cells, scores, strict=False)])
        if error is None:
            return lam, None
        blur = self.anomaly_map_generator.blur
        return lam, blur(error.float()) if self.reconstructs_pixels else self.global_cells(self.global_places(error))

    def predictions(self, maps: tuple[Tensor | None, Tensor | None]) -> InferenceBatch:
        """Fuse LAM and GAM to bounded maps and scores, equations 17, 20 and 21."""
        # what cannot be judged, as an image that is not finite, must not pass as normal
        anomaly_map = bounded(self.anomaly_map_generator(maps)).nan_to_num(nan=1.0)
        return InferenceBatch(pred_score=anomaly_map.amax((1, 2, 3)), anomaly_map=anomaly_map)

    @torch.no_grad()
    def calibrate(
        self,
        seen: Sequence[tuple[tuple[Tensor, ...], Tensor | None]],
        map_quantiles: tuple[float, float],
        cell_calibration: bool,
    ) -> InferenceBatch:
        """Set the scales of both maps from normal images, equations 15, 16, 18 and 19.

        Args:
            seen (Sequence[tuple[tuple[Tensor, ...], Tensor | None]]): What :meth:`observe` saw in batches of them.
            map_quantiles (tuple[float, float]): Quantiles that become 0 and 1.
            cell_calibration (bool): Judge the error of every token by how its place behaves on these images first.

        Returns:
            InferenceBatch: Scores and maps of these images as if they were new, to take thresholds from.
        """
        scores = [torch.cat(parts) for parts in zip(*(scores for scores, _ in seen), strict=True)]
        errors = None if seen[0][1] is None else torch.cat([error for _, error in seen])
        if cell_calibration and errors is not None and not self.reconstructs_pixels:
            maps = self.maps(scores, None)[0], self.global_cells(self.global_places.calibrate(errors))
        else:
            maps = self.maps(scores, errors)
        for branch, branch_maps in enumerate(maps):
            if branch_maps is not None:
                self.anomaly_map_generator.calibrate(branch, quantiles([branch_maps], map_quantiles))
        return self.predictions(maps)

    @torch.no_grad()
    def explain(self, images: Tensor) -> dict[str, Tensor]:
        """What each branch saw.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            dict[str, Tensor]: ``lam`` and ``gam``, calibrated, and ``tam``, all ``(B, 1, H, W)`` with 0 and 1 at the
            calibration quantiles; ``score``, ``(B,)``, equation 21; ``reconstruction`` in [0, 1], ``(B, 3, H, W)``,
            where pixels are reconstructed. Branches that are switched off are missing.
        """
        encoded = self._encode(images)
        maps = self.maps(*self._judge(*encoded))
        tam = self.anomaly_map_generator(maps)
        seen = {"tam": tam, "score": tam.amax((1, 2, 3))}
        for branch, (name, raw) in enumerate(zip(("lam", "gam"), maps, strict=True)):
            if raw is not None:
                seen[name] = self.anomaly_map_generator.normalized(branch, raw)
        if self.reconstructs_pixels and encoded[-1] is not None:
            seen["reconstruction"] = (encoded[-1] + 1) / 2
        return seen

    def _encode(
        self,
        images: Tensor,
        descriptors: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """Normalised descriptors ``D``, features ``F`` of equation 9, what is to be reconstructed, reconstruction."""
        normalized = None
        if self.needs_descriptors:
            normalized = self.descriptor.normalize(
                self.descriptor.describe(images) if descriptors is None else descriptors,
            )
        if self.encoder is None:
            return normalized, None, None, None
        # the decoder's tanh ends in [-1, 1]
        target = 2 * images - 1 if self.reconstructs_pixels else F.adaptive_avg_pool2d(normalized, self.tokens)
        encoded = self.encoder(target)
        if self.decoder is None:
            return normalized, encoded, None, None
        reconstruction = self.decoder(encoded) if self.reconstructs_pixels else self.decoder(target, encoded)
        return normalized, encoded, target, reconstruction

    def _cells(self, encoded: Tensor | None, normalized: Tensor) -> tuple[Tensor, Tensor]:
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
            described = _sampled(normalized, sample)
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


def _mean(maps: Sequence[Tensor]) -> Tensor | None:
    return sum(maps) / len(maps) if maps else None


def _checked_scales(scales: Sequence[int], grid: tuple[int, int]) -> tuple[int, ...]:
    if not scales or min(scales) < 1 or max(scales) > min(grid):
        msg = (
            f"scales={tuple(scales)} must be numbers of cells from 1 to the {min(grid)} of the grid; give e.g. (1, 2)."
        )
        raise ValueError(msg)
    return tuple(scales)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        msg = f"Unknown {name}={value!r}; choose one of {', '.join(map(repr, choices))}."
        raise ValueError(msg)
