# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Density branch of the paper: a mixture that a network predicts, the local anomaly map LAM (equations 1-3, 11-14)."""

from typing import Literal

import torch
from einops import rearrange
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn

from anomalib_vmpfd.anomaly.branch import Branch, Features, Scores
from anomalib_vmpfd.anomaly.raw_map import RawMap
from anomalib_vmpfd.engine.arguments import check_choice
from anomalib_vmpfd.nn.grid import Resample
from anomalib_vmpfd.nn.mixture_density import MixtureDensityHead
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor

from .encoder import TokenEncoder

POSITION_CHANNELS = 16


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
        check_choice("density_args.features", features, ("fused", "descriptor", "encoder"))
        check_choice("density_args.target", target, ("descriptor", "self"))
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
        self.maps = nn.ModuleList([RawMap(self.grid, image_size, smoothing=smoothing, quantiles_of="pixels")])

    def loss(self, features: Features) -> dict[str, Tensor]:
        """``LL`` of equation 7, the mean over cells."""
        x, y = self._condition_and_target(features)
        return {"nll": self.head.loss(y, x).mean() / self._likelihood_dims}

    def score(self, features: Features) -> Scores:
        """Negative log-likelihood of every cell, ``(B, h, w)``, equation 13."""
        x, y = self._condition_and_target(features)
        return (self.head.score(y, x),)

    def _condition_and_target(self, features: Features) -> tuple[Tensor, Tensor]:
        """Condition ``x`` and target ``y`` of the mixture in every cell, from ``T`` of equation 11."""
        # every layer of this branch is pointwise, so a training step can do with a sample of the cells
        cells = self.grid.shape[0] * self.grid.shape[1]
        sample = torch.randperm(cells)[: self.train_cells] if self.training and self.train_cells else None
        parts = []
        if self.to_cells is not None:
            parts.append(_sampled(self.to_cells(features.encoded), sample))
        if self.adapter is not None:
            parts.append(self.adapter(_sampled(features.descriptors[-1], sample)))
        fused = self.fusion(torch.cat(parts, dim=1))
        if self.target == "self":
            return fused, fused
        position = _sampled(self.position, sample).expand(fused.shape[0], -1, -1, -1)
        return torch.cat([self.code(fused), position], dim=1), _sampled(features.descriptors[-1], sample)


def _sampled(maps: Tensor, sample: Tensor | None) -> Tensor:
    """Keep the sampled cells of ``(B, C, h, w)`` as ``(B, C, n, 1)``; all of them without a sample."""
    return maps if sample is None else maps.flatten(2)[..., sample, None]
