# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly maps of VMPFD-AD: local, global and total (equations 14 to 21)."""

from collections.abc import Sequence

import torch
from anomalib.models.components import GaussianBlur2d
from torch import Tensor, nn

from anomalib_vmpfd.components.cell_geometry import CellGeometry, gaussian_matrix, interpolation_matrix, resample


class CellMap(nn.Module):
    """Bring maps of cells to the size of the image.

    Args:
        image_size (tuple[int, int]): Height and width of the map in pixels.
        grid (tuple[int, int]): Number of cells.
        geometry (CellGeometry): Where the cells lie in the image.
        sigma (float): Standard deviation in pixels of a Gaussian that smooths the maps; 0 leaves them.
    """

    rows: Tensor
    columns: Tensor

    def __init__(
        self,
        image_size: tuple[int, int],
        grid: tuple[int, int],
        geometry: CellGeometry,
        sigma: float = 0.0,
    ) -> None:
        super().__init__()
        for name, cells, pixels in zip(("rows", "columns"), grid, image_size, strict=True):
            # interpolation and smoothing are linear in each axis: one product does both
            matrix = gaussian_matrix(pixels, sigma) @ interpolation_matrix(cells, geometry, pixels)
            self.register_buffer(name, matrix, persistent=False)

    def forward(self, cells: Tensor) -> Tensor:
        """Linear interpolation of the cells ``(B, h, w)`` to the pixels ``(B, 1, H, W)``, smoothed, equation 14.

        The cells lie where the network really saw them: a PDN without padding has its first one 16 pixels inside the
        image.
        """
        return resample(cells.float(), self.rows, self.columns).unsqueeze(1)


class PlaceStatistics(nn.Module):
    """Judge cells by how their place behaves on normal images: corners, edges and other spots are restless.

    Args:
        grid (tuple[int, int]): Number of cells.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(grid))
        self.register_buffer("std", torch.ones(grid))

    def forward(self, scores: Tensor) -> Tensor:
        """Judge the cells ``(B, h, w)``."""
        return (scores.float() - self.mean) / self.std

    @torch.no_grad()
    def calibrate(self, scores: Tensor) -> Tensor:
        """Learn from the scores of held-out normals.

        Args:
            scores (Tensor): Scores of their cells, ``(N, h, w)``.

        Returns:
            Tensor: What :meth:`forward` would make of them if they were new, each by the others: thresholds from scores
            that an image had a part in would let too many new normals through.
        """
        scores = scores.float()
        mean, std = _place_statistics(scores)
        self.mean.copy_(mean)
        self.std.copy_(std)
        if len(scores) == 1:
            return self(scores)
        judged = []
        for index, image in enumerate(scores):
            mean, std = _place_statistics(torch.cat([scores[:index], scores[index + 1 :]]))
            judged.append((image - mean) / std)
        return torch.stack(judged)


class AnomalyMapGenerator(nn.Module):
    """Bring the maps of both branches to one scale and add them up.

    Args:
        weights (tuple[float, float]): Weights of LAM and GAM in TAM; a branch of weight 0 takes no part.
        sigma (float): Standard deviation in pixels of the Gaussian that smooths errors of pixels; 0 leaves them.
    """

    quantiles: Tensor

    def __init__(self, weights: tuple[float, float] = (0.5, 0.5), sigma: float = 0.0) -> None:
        super().__init__()
        self.weights = weights
        self.blur = GaussianBlur2d(sigma=sigma, channels=1) if sigma > 0 else nn.Identity()
        # q_start and q_end of LAM and of GAM; until they are calibrated the maps keep their own scale
        self.register_buffer("quantiles", torch.tensor([[0.0, 1.0], [0.0, 1.0]]))

    @torch.no_grad()
    def calibrate(self, branch: int, quantiles: Tensor) -> None:
        """Keep ``q_start`` and ``q_end`` of held-out normals, equations 15, 16, 18 and 19.

        Args:
            branch (int): 0 for LAM, 1 for GAM.
            quantiles (Tensor): Both quantiles, shape ``(2,)``.
        """
        self.quantiles[branch] = quantiles.to(self.quantiles)

    def forward(self, maps: Sequence[Tensor | None]) -> Tensor:
        """Normalise LAM and GAM and fuse them to TAM, equations 17 and 20.

        Args:
            maps (Sequence[Tensor | None]): LAM and GAM of shape ``(B, 1, H, W)``; ``None`` for a missing branch.

        Returns:
            Tensor: TAM of shape ``(B, 1, H, W)``, real-valued.
        """
        present = [
            (weight, self.normalized(branch, m))
            for branch, (weight, m) in enumerate(zip(self.weights, maps, strict=True))
            if m is not None
        ]
        if len(present) == 1:
            return present[0][1]
        return sum(weight * m for weight, m in present)

    def normalized(self, branch: int, anomaly_map: Tensor) -> Tensor:
        """Bring ``q_start`` of the branch to 0 and ``q_end`` to 1, equations 17 and 20."""
        start, end = self.quantiles[branch]
        # a branch that is the same on all normals has no scale of its own
        return (anomaly_map - start) / (end - start).clamp_min(1e-6)


def _place_statistics(scores: Tensor, prior: float = 32.0) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every cell over normal images ``(N, h, w)``, each ``(h, w)``.

    Both are drawn towards the whole map's by ``prior`` images' worth, so that a few images suffice and a part keeps
    some of its lead over a quiet background: that is where defects are. Places that vary less than the median place
    count as that one: quiet background must not turn its noise into alarms.
    """
    weight = len(scores) / (len(scores) + prior)
    mean = scores.mean(0)
    std = (weight * (scores - mean).square().mean(0) + (1 - weight) * scores.var(unbiased=False)).sqrt()
    return weight * mean + (1 - weight) * scores.mean(), std.clamp_min(std.median().clamp_min(1e-6))
