# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""One raw map of scores in cells: its scale among normals, its pixels, and what it says of the whole image."""

from typing import Literal

import torch
from torch import Tensor, nn

from anomalib_vmpfd.nn.grid import Grid, Resample, pixel_grid

from .location_statistics import PRIOR, LocationStatistics
from .scale import quantiles

# cells whose quantiles are taken: more change nothing
QUANTILE_CELLS = 16_000_000
# images' worth of a deviation of 1 in that of the maxima: about what the maxima of many normals have. Those of two or
# three may be alike by chance, and their map would outweigh all others
MAXIMUM_PRIOR = 4


class RawMap(nn.Module):
    """What is usual for a map of scores on normal images.

    As a map it is normalised by two quantiles of normals, equations 15 to 20, and brought to the pixels. For the image
    score it is standardised at every location, and its maximum by mean and standard deviation of the maxima of normals,
    the latter shrunk towards 1.

    Args:
        grid (Grid): Where the cells lie.
        image_size (tuple[int, int]): Height and width of the images in pixels.
        weight (float): Weight among the maps of a branch.
        in_image_score (bool): Whether its maximum is part of the image score.
        smoothing (float): Standard deviation in pixels of a Gaussian over the map.
        quantiles_of (str): ``"cells"``, or ``"pixels"`` for the letter of equations 15 and 18.
        location_prior (float): See :class:`LocationStatistics`.
    """

    quantiles: Tensor
    maximum: Tensor
    region: Tensor | None

    def __init__(
        self,
        grid: Grid,
        image_size: tuple[int, int],
        weight: float = 1.0,
        in_image_score: bool = True,
        smoothing: float = 0.0,
        quantiles_of: Literal["cells", "pixels"] = "cells",
        location_prior: float = PRIOR,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.in_image_score = in_image_score
        self.quantiles_of = quantiles_of
        self.grid = grid
        self.to_pixels = Resample(grid, pixel_grid(image_size), smoothing)
        self.locations = LocationStatistics(grid.shape, location_prior)
        # until they are calibrated, maps and maxima keep their own scale
        self.register_buffer("quantiles", torch.tensor([0.0, 1.0]))
        self.register_buffer("maximum", torch.tensor([0.0, 1.0]))
        # the pre-processor keeps it; here it is for calibrations alone
        self.register_buffer("region", None, persistent=False)

    def look_at(self, region: Tensor | None) -> None:
        """Take the scales of later calibrations from pixels of a region ``(H, W)`` alone, boolean; ``None``: all."""
        self.region = region

    def anomaly_map(self, scores: Tensor) -> Tensor:
        """Map ``(B, 1, H, W)`` of scores ``(B, h, w)``, with 0 and 1 at both quantiles of normals, equation 14."""
        start, end = self.quantiles
        # a map that is the same on all normals has no scale of its own
        return (self.to_pixels(scores.float()).unsqueeze(1) - start) / (end - start).clamp_min(1e-6)

    def image_score(self, scores: Tensor) -> Tensor:
        """Largest score of each image, ``(B,)``, standardised."""
        mean, std = self.maximum
        return (self.locations(scores).amax((1, 2)) - mean) / std

    @torch.no_grad()
    def calibrate(self, scores: Tensor, map_quantiles: tuple[float, float], learnt: Tensor | None = None) -> Tensor:
        """Learn the scales from normals.

        Args:
            scores (Tensor): Scores of normal images as if they were new, ``(N, h, w)``.
            map_quantiles (tuple[float, float]): Quantiles that become 0 and 1.
            learnt (Tensor | None): Scores of learnt images, ``(M, h, w)``, where the others are new: the statistics of
                the locations come from these then, as there are more of them.

        Returns:
            Tensor: Image scores of these images as if they were new, ``(N,)``.
        """
        of_pixels = self.quantiles_of == "pixels"
        region = None if self.region is None else self.region.to(scores.device)
        cells = None if region is None else self.grid.covering(region)
        per_image = self.to_pixels.cells if of_pixels else scores[0].numel()
        step = max(1, len(scores) * per_image // QUANTILE_CELLS)
        values, inside = (self.to_pixels(scores[::step].float()), region) if of_pixels else (scores[::step], cells)
        self.quantiles.copy_(quantiles([values if inside is None else values[:, inside]], map_quantiles))
        left_out = self.locations.fit(scores if learnt is None else learnt, cells)
        maxima = (left_out if learnt is None else self.locations(scores)).amax((1, 2))
        known, count = maxima.var(unbiased=False), len(maxima) - 1
        std = ((count * known + MAXIMUM_PRIOR) / (count + MAXIMUM_PRIOR)).sqrt()
        self.maximum.copy_(torch.stack([maxima.mean(), std]))
        return (maxima - self.maximum[0]) / self.maximum[1]
