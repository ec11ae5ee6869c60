# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Density branch of the default: distances to prototypes of normal cells, the local anomaly map LAM."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.anomaly.branch import Branch, Features, Normals, Scores
from anomalib_vmpfd.anomaly.raw_map import RawMap
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor
from anomalib_vmpfd.nn.prototypes import Prototypes

from .encoder import TokenEncoder

# cells of normal images among which the prototypes of a scale are chosen: a smaller pool loses rare normal cells
POOL = 200_000


class Scale(NamedTuple):
    """Prototypes of one size of cells.

    Attributes:
        level (int): Level of the descriptor, 0 is the finest.
        side (int): Cells along the side of the square that a prototype stands for.
        num_components (int): Number ``K`` of prototypes.
        weight (float): Weight of its map in LAM.
        in_image_score (bool): Whether its maximum is part of the image score.
    """

    level: int
    side: int = 1
    num_components: int = 4096
    weight: float = 1.0
    in_image_score: bool = True


class PrototypeDensity(Branch):
    """Equal Gaussians around descriptors of normal cells, at several scales, see :class:`Prototypes`.

    Args:
        image_size (tuple[int, int]): Height and width of the images in pixels.
        descriptor (PatchDescriptor): Whose descriptors are modelled.
        encoder (TokenEncoder | None): Not read.
        scales (Sequence[Mapping[str, Any]] | None): Fields of a :class:`Scale` each. ``None``: cells of the last level
            and squares of 2 x 2 of them; where there is a finer level its cells too, for the map only.
        num_components (int): Number of prototypes of these scales where ``scales`` is ``None``; half as many of the
            finer level.
        smoothing (float): Standard deviation in pixels of a Gaussian over the map.

    Raises:
        ValueError: If a scale is unknown or does not fit the descriptor's grid.
    """

    title = "LAM (local)"
    leaves_one_out = True
    reads_encoder = False

    def __init__(
        self,
        image_size: tuple[int, int],
        descriptor: PatchDescriptor,
        encoder: TokenEncoder | None = None,
        scales: Sequence[Mapping[str, Any]] | None = None,
        num_components: int = 4096,
        smoothing: float = 3.0,
    ) -> None:
        super().__init__()
        del encoder
        self.scales = _scales(scales, len(descriptor.levels), num_components)
        self.maps, self.prototypes = nn.ModuleList(), nn.ModuleList()
        for scale in self.scales:
            level = descriptor.levels[scale.level]
            height, width = (cells // scale.side for cells in level.grid.shape)
            if min(height, width) < 1:
                msg = f"{scale} does not fit a grid of {level.grid.shape[0]} x {level.grid.shape[1]} cells."
                raise ValueError(msg)
            grid = level.grid.pooled((height, width), scale.side)
            self.maps.append(RawMap(grid, image_size, scale.weight, scale.in_image_score, smoothing))
            self.prototypes.append(Prototypes(level.channels, scale.num_components))

    @torch.no_grad()
    def fit(self, normals: Normals) -> None:
        """Choose prototypes among random cells of all images."""
        per_image = -(-POOL // len(normals))
        cells: list[list[Tensor]] = [[] for _ in self.scales]
        sources: list[list[Tensor]] = [[] for _ in self.scales]
        for features, numbers in normals:
            # drawn image by image: the same cells in batches of any size
            for index, number in enumerate(numbers):
                for drawn, source, scale in zip(cells, sources, self.scales, strict=True):
                    values = F.avg_pool2d(features.descriptors[scale.level][index], scale.side).flatten(1)
                    drawn.append(values[:, torch.randperm(values.shape[1])[:per_image]].T)
                    source.append(number.expand(len(drawn[-1])))
        for prototypes, drawn, source in zip(self.prototypes, cells, sources, strict=True):
            pool = torch.cat(drawn)
            drawn.clear()
            prototypes.fit(pool, torch.cat(source).to(pool.device))

    @torch.no_grad()
    def score_left_out(self, normals: Normals) -> Scores:
        """Scores by the prototypes of the other images."""
        batches = [self._score(features, numbers) for features, numbers in normals]
        return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))

    def score(self, features: Features) -> Scores:
        """Distances of the cells of each scale, ``(B, h, w)``."""
        return self._score(features, None)

    def _score(self, features: Features, numbers: Tensor | None) -> Scores:
        return tuple(
            prototypes(F.avg_pool2d(features.descriptors[scale.level], scale.side), numbers)
            for prototypes, scale in zip(self.prototypes, self.scales, strict=True)
        )


def _scales(scales: Sequence[Mapping[str, Any]] | None, levels: int, num_components: int) -> list[Scale]:
    if scales is None:
        default = [Scale(levels - 1, 1, num_components, 2.0), Scale(levels - 1, 2, num_components)]
        finer = [Scale(0, 1, max(1, num_components // 2), 2.0, in_image_score=False)]
        return finer + default if levels > 1 else default
    try:
        checked = [Scale(**scale) for scale in scales]
    except TypeError as error:
        msg = f"A scale in density_args.scales has the fields {', '.join(Scale._fields)} ({error})."
        raise ValueError(msg) from error
    for scale in checked:
        if not 0 <= scale.level < levels or scale.side < 1 or scale.num_components < 1:
            msg = f"{scale}: level must be below {levels}, side and num_components at least 1."
            raise ValueError(msg)
    if not any(scale.in_image_score for scale in checked):
        msg = "None of density_args.scales is in_image_score; give at least one that is."
        raise ValueError(msg)
    return checked
