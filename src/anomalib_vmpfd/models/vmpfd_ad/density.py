# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Density branches of VMPFD-AD: how likely a patch is, the local anomaly map LAM (equations 1 to 3 and 10 to 14)."""

from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.anomaly.branch import Branch, Features, Normals
from anomalib_vmpfd.nn.grid import Resample, pixel_grid
from anomalib_vmpfd.nn.mixture_density import MixtureDensityHead
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor
from anomalib_vmpfd.nn.prototype_mixture import PrototypeMixtureHead

from .encoder import TokenEncoder

# cells of normal images among which the prototypes are chosen: twice as many change little and cost twice the time
PROTOTYPE_CELLS = 40_000
# learnt images that show how far normals stray around a prototype; more of them change little
SPREAD_IMAGES = 100
POSITION_CHANNELS = 16


class PrototypeDensity(Branch):
    """Equal Gaussians around descriptors of normal cells, at one scale or more, see :class:`PrototypeMixtureHead`.

    Args:
        image_size (tuple[int, int]): Height and width of the images in pixels.
        descriptor (PatchDescriptor): Whose descriptors are modelled.
        encoder (TokenEncoder | None): Not read.
        num_components (int): Number ``K`` of prototypes at each scale.
        scales (Sequence[int]): Cells along the side of the square that a prototype stands for; a set of prototypes for
            each.
        standardize (bool): Standardise distances by mean and spread of normals around the prototype.
        smoothing (float): Standard deviation in pixels of a Gaussian over the map.

    Raises:
        ValueError: If a scale does not fit the descriptor's grid.
    """

    title = "LAM (local)"
    reads_encoder = False

    def __init__(
        self,
        image_size: tuple[int, int],
        descriptor: PatchDescriptor,
        encoder: TokenEncoder | None = None,
        num_components: int = 8192,
        scales: Sequence[int] = (1, 2),
        standardize: bool = True,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        del encoder
        grid = descriptor.grid
        self.scales = _checked_scales(scales, grid.shape)
        self.standardize = standardize
        self.heads = nn.ModuleList(PrototypeMixtureHead(descriptor.channels, num_components) for _ in self.scales)
        self.to_pixels = nn.ModuleList(
            Resample(
                grid.pooled((grid.shape[0] // scale, grid.shape[1] // scale), scale), pixel_grid(image_size), smoothing
            )
            for scale in self.scales
        )

    @torch.no_grad()
    def fit(self, normals: Normals) -> None:
        """Choose prototypes among random cells of all images."""
        per_image = -(-PROTOTYPE_CELLS // len(normals))
        cells: list[list[Tensor]] = [[] for _ in self.heads]
        sources: list[list[Tensor]] = [[] for _ in self.heads]
        for features, numbers in normals:
            # drawn image by image: the same cells in batches of any size
            for image, number in zip(features.descriptors, numbers, strict=True):
                for drawn, source, scale in zip(cells, sources, self.scales, strict=True):
                    values = F.avg_pool2d(image, scale).flatten(1)
                    drawn.append(values[:, torch.randperm(values.shape[1])[:per_image]])
                    source.append(number.expand(drawn[-1].shape[1]))
        for head, drawn, source in zip(self.heads, cells, sources, strict=True):
            pool = torch.cat(drawn, dim=1)
            head.fit_prototypes(pool.T, torch.cat(source).to(pool.device))

    @torch.no_grad()
    def score_left_out(self, normals: Normals, *, thresholds: bool) -> tuple[Tensor, ...] | None:
        """Scores by the prototypes of other images; learns on the way how far normals stray around each prototype."""
        if len(normals) == 1 or not (self.standardize or thresholds):
            return None
        seen: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.heads]
        for features, numbers in normals if thresholds else normals.evenly(SPREAD_IMAGES):
            for parts, head, scale in zip(seen, self.heads, self.scales, strict=True):
                parts.append(head.nearest(F.avg_pool2d(features.descriptors, scale), numbers))
        scores = []
        for head, parts in zip(self.heads, seen, strict=True):
            distances, nearest = map(torch.cat, zip(*parts, strict=True))
            scores.append(head.fit_spreads(distances, nearest) if self.standardize else distances)
        return tuple(scores)

    def score(self, features: Features) -> tuple[Tensor, ...]:
        """Scores of the cells of each scale, ``(B, h, w)``, the exponent of equation 13 for the nearest prototype."""
        return tuple(
            head.score(F.avg_pool2d(features.descriptors, scale))
            for head, scale in zip(self.heads, self.scales, strict=True)
        )

    def anomaly_map(self, scores: tuple[Tensor, ...]) -> Tensor:
        """Mean of the maps of all scales, equation 14."""
        maps = [resample(seen.float()) for resample, seen in zip(self.to_pixels, scores, strict=True)]
        return (sum(maps[1:], maps[0]) / len(maps)).unsqueeze(1)


class PredictedMixture(Branch):
    """A Gaussian mixture that a network predicts for every cell, equations 1 to 3 and 11 to 13.

    Args:
        image_size (tuple[int, int]): Height and width of the images in pixels.
        descriptor (PatchDescriptor): The descriptor ``D``.
        encoder (TokenEncoder | None): The encoder of ``F``; not read where ``features`` is ``"descriptor"``.
        features (str): What the mixture depends on: ``"fused"``, ``"descriptor"`` or ``"encoder"`` features (table 7).
        target (str): What it models: ``"self"``: ``p(T | T)`` as equation 13; ``"descriptor"``: the frozen descriptor
            given a narrow code of ``T``, which can neither be copied nor shrunk.
        bottleneck (int | None): Channels of that code, of ``target="descriptor"`` only; ``None`` for 8.
        num_components (int): Number ``K`` of Gaussians.
        covariance (str): ``"diagonal"``, equation 3, or ``"full"``.
        beta (float): ``beta`` of equation 3.
        sigma_floor (float): Added to every predicted sigma.
        train_cells (int | None): Random cells of an image that a training step learns from; ``None``: all.
        smoothing (float): Standard deviation in pixels of a Gaussian over the map.

    Raises:
        ValueError: If an argument is unknown, or the encoder is missing.
    """

    title = "LAM (local)"

    def __init__(
        self,
        image_size: tuple[int, int],
        descriptor: PatchDescriptor,
        encoder: TokenEncoder | None,
        features: Literal["fused", "descriptor", "encoder"] = "fused",
        target: Literal["descriptor", "self"] = "descriptor",
        bottleneck: int | None = None,
        num_components: int = 10,
        covariance: Literal["diagonal", "full"] = "diagonal",
        beta: float = 1.0,
        sigma_floor: float = 0.05,
        train_cells: int | None = 32,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        _check_choice("features", features, ("fused", "descriptor", "encoder"))
        _check_choice("target", target, ("descriptor", "self"))
        if target == "self" and bottleneck is not None:
            msg = "bottleneck in density_args belongs to target='descriptor'; leave it out with target='self'."
            raise ValueError(msg)
        dim = descriptor.channels if encoder is None else encoder.dim
        self.target = target
        self.train_cells = train_cells
        self.reads_encoder = features != "descriptor"
        self.grid = descriptor.grid
        self.adapter = nn.Conv2d(descriptor.channels, dim, 1) if features != "encoder" else None
        self.to_cells: nn.Module | None = None
        if encoder is not None and self.reads_encoder:
            if target == "self" and features == "encoder":
                self.grid = encoder.grid
            self.to_cells = Resample(encoder.grid, self.grid)
        self.fusion = nn.Conv2d(2 * dim, dim, 1) if features == "fused" else nn.Identity()
        condition, modelled = dim, dim
        # equation 7 sums over the channels of y; their mean keeps the balance with the other losses for any y
        self._likelihood_dims = 1
        if target == "descriptor":
            self.code = nn.Conv2d(dim, bottleneck or 8, 1)
            position = build_sincos2d_pos_embed(list(self.grid.shape), POSITION_CHANNELS, temperature=100.0)
            position = rearrange(position, "(h w) c -> 1 c h w", h=self.grid.shape[0])
            self.register_buffer("position", position, persistent=False)
            condition, modelled = (bottleneck or 8) + POSITION_CHANNELS, descriptor.channels
            self._likelihood_dims = modelled
        self.head = MixtureDensityHead(
            condition,
            modelled,
            num_components,
            beta=beta,
            sigma_floor=sigma_floor,
            covariance=covariance,
        )
        self.to_pixels = Resample(self.grid, pixel_grid(image_size), smoothing)

    def loss(self, features: Features) -> dict[str, Tensor]:
        """``LL`` of equation 7, the mean over cells."""
        x, y = self._condition_and_target(features)
        return {"nll": self.head.loss(y, x).mean() / self._likelihood_dims}

    def score(self, features: Features) -> tuple[Tensor, ...]:
        """Negative log-likelihood of every cell, ``(B, h, w)``, equation 13."""
        x, y = self._condition_and_target(features)
        return (self.head.score(y, x),)

    def anomaly_map(self, scores: tuple[Tensor, ...]) -> Tensor:
        """Linear interpolation between the centres of the cells, equation 14."""
        return self.to_pixels(scores[0].float()).unsqueeze(1)

    def _condition_and_target(self, features: Features) -> tuple[Tensor, Tensor]:
        """Condition ``x`` and target ``y`` of the mixture in every cell, from ``T`` of equation 11."""
        # every layer of this branch is pointwise, so a training step can do with a sample of the cells
        cells = self.grid.shape[0] * self.grid.shape[1]
        sample = torch.randperm(cells)[: self.train_cells] if self.training and self.train_cells else None
        parts = []
        if self.to_cells is not None:
            parts.append(_sampled(self.to_cells(features.encoded), sample))
        if self.adapter is not None:
            parts.append(self.adapter(_sampled(features.descriptors, sample)))
        fused = self.fusion(torch.cat(parts, dim=1))
        if self.target == "self":
            return fused, fused
        position = _sampled(self.position, sample).expand(fused.shape[0], -1, -1, -1)
        return torch.cat([self.code(fused), position], dim=1), _sampled(features.descriptors, sample)


def _sampled(maps: Tensor, sample: Tensor | None) -> Tensor:
    """Keep the sampled cells of ``(B, C, h, w)`` as ``(B, C, n, 1)``; all of them without a sample."""
    return maps if sample is None else maps.flatten(2)[..., sample, None]


def _checked_scales(scales: Sequence[int], shape: tuple[int, int]) -> tuple[int, ...]:
    if not scales or min(scales) < 1 or max(scales) > min(shape):
        msg = (
            f"scales={tuple(scales)} must be numbers of cells from 1 to the {min(shape)} of the grid; give e.g. (1, 2)."
        )
        raise ValueError(msg)
    return tuple(scales)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        msg = f"Unknown {name}={value!r} in density_args; choose one of {', '.join(map(repr, choices))}."
        raise ValueError(msg)
