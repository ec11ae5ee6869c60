# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Reconstruction branch of the default: the principal components of whole images, the global anomaly map GAM."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.anomaly.branch import Branch, Features, Normals, Scores
from anomalib_vmpfd.anomaly.raw_map import RawMap
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor
from anomalib_vmpfd.nn.precision import full_float32
from anomalib_vmpfd.nn.principal_components import code_length, principal_components

from .encoder import TokenEncoder

FOLDS = 10
# images that the components are taken from: the decomposition grows with the cube of their number
MAX_IMAGES = 1000


class ComponentReconstruction(Branch):
    """Error of reconstructing the descriptors of a whole image from a few principal components of normal images.

    The best linear autoencoder with a code of ``code`` values. No cell can be copied through a code that all cells
    share: a part that is missing, doubled or displaced stands out even where every patch by itself is normal.

    Args:
        image_size (tuple[int, int]): Height and width of the images in pixels.
        descriptor (PatchDescriptor): Whose descriptors are reconstructed.
        encoder (TokenEncoder | None): Not read.
        code (int): Number of components; at most half as many as there are images, or they would be learnt by heart.
        sides (Sequence[int]): Cells along the side of the squares whose mean descriptors are reconstructed, components
            and a map for each.
        smoothing (float): Standard deviation in pixels of a Gaussian over the map.

    Raises:
        ValueError: If a side does not fit the descriptor's grid.
    """

    title = "GAM (global)"
    leaves_one_out = True
    reads_encoder = False

    def __init__(
        self,
        image_size: tuple[int, int],
        descriptor: PatchDescriptor,
        encoder: TokenEncoder | None = None,
        code: int = 64,
        sides: Sequence[int] = (2, 4),
        smoothing: float = 3.0,
    ) -> None:
        super().__init__()
        del encoder
        grid = descriptor.grid
        if not sides or min(sides) < 1 or max(sides) > min(grid.shape):
            msg = f"sides={tuple(sides)} must be numbers of cells from 1 to the {min(grid.shape)} of the grid."
            raise ValueError(msg)
        self.code = code
        self.sides = tuple(sides)
        self.maps = nn.ModuleList()
        for index, side in enumerate(self.sides):
            coarse = grid.pooled((grid.shape[0] // side, grid.shape[1] // side), side)
            self.maps.append(RawMap(coarse, image_size, smoothing=smoothing))
            values = descriptor.channels * coarse.shape[0] * coarse.shape[1]
            self.register_buffer(f"components_{index}", torch.zeros(code, values))

    @torch.no_grad()
    def fit(self, normals: Normals) -> None:
        """Take the principal components of the normals."""
        for index, rows in enumerate(self._rows(normals.evenly(MAX_IMAGES))):
            components = principal_components(rows, code_length(self.code, len(rows)))
            self._components(index).zero_()
            self._components(index)[: len(components)] = components

    @torch.no_grad()
    def score_left_out(self, normals: Normals) -> Scores:
        """Errors by the components of the other nine tenths of the images, which stands in for leaving out each one."""
        learnt = normals.evenly(MAX_IMAGES)
        crossed = tuple(
            self._cross_fitted(rows, each.locations.mean.shape)
            for rows, each in zip(self._rows(learnt), self.maps, strict=True)
        )
        if len(learnt) == len(normals):
            return crossed
        # the others are new to the components
        batches = [(self.score(features), numbers) for features, numbers in normals]
        scores = tuple(map(torch.cat, zip(*(seen for seen, _ in batches), strict=True)))
        known = torch.isin(torch.cat([n for _, n in batches]), torch.cat([n for _, n in learnt]))
        for each, left_out in zip(scores, crossed, strict=True):
            each[known] = left_out
        return scores

    def _cross_fitted(self, rows: Tensor, shape: tuple[int, int]) -> Tensor:
        """Errors of rows ``(N, C h w)``, a tenth of them after the other by the components of the rest."""
        products = rows.double() @ rows.double().T
        left_out = rows.new_empty(len(rows), *shape)
        folds = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)) % min(FOLDS, len(rows))
        for fold in range(min(FOLDS, len(rows))):
            out = folds == fold
            rest = out if out.all() else ~out
            learnt = rows[rest]
            components = principal_components(learnt, code_length(self.code, len(learnt)), products[rest][:, rest])
            left_out[out] = _error(rows[out], components, shape)
        return left_out

    def score(self, features: Features) -> Scores:
        """Root mean square error of every square, ``(B, h, w)``, for each side."""
        return tuple(
            _error(self._squares(features, side).flatten(1), self._components(index), each.locations.mean.shape)
            for index, (side, each) in enumerate(zip(self.sides, self.maps, strict=True))
        )

    def _components(self, index: int) -> Tensor:
        return getattr(self, f"components_{index}")

    def _rows(self, normals: Normals) -> list[Tensor]:
        """A row of descriptors for each image, ``(N, C h w)``, for each side."""
        batches = [[self._squares(features, side).flatten(1) for side in self.sides] for features, _ in normals]
        return [torch.cat(parts) for parts in zip(*batches, strict=True)]

    @staticmethod
    def _squares(features: Features, side: int) -> Tensor:
        return F.avg_pool2d(features.descriptors[-1], side)


def _error(rows: Tensor, components: Tensor, shape: tuple[int, int]) -> Tensor:
    """Root mean square error over the channels of rows ``(B, C h w)``, ``(B, h, w)``."""
    with full_float32(rows.device.type):
        rows = rows.float()
        # never transposed: an export would hold the components, most of its numbers, a second time
        residual = rows - torch.einsum("kb,kd->bd", components @ rows.T, components)
        return residual.unflatten(1, (-1, *shape)).square().mean(1).sqrt()
