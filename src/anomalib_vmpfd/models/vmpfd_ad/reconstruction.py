# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Reconstruction branches of VMPFD-AD: what the whole image should look like, the global anomaly map GAM (eq. 18)."""

import torch
from anomalib.models.components import GaussianBlur2d
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.anomaly.branch import Branch, Features, Normals
from anomalib_vmpfd.anomaly.location_statistics import LocationStatistics
from anomalib_vmpfd.nn.descriptor_decoder import DescriptorDecoder
from anomalib_vmpfd.nn.grid import Resample, pixel_grid
from anomalib_vmpfd.nn.image_decoder import TransposedConvDecoder
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor

from .encoder import TokenEncoder
from .loss import reconstruction_terms


class PixelReconstruction(Branch):
    """The image from the encoder's features, as in the paper.

    Args:
        image_size (tuple[int, int]): Height and width of the images in pixels.
        descriptor (PatchDescriptor): Not read.
        encoder (TokenEncoder): An encoder that reads pixels.
        lambda_mse (float): ``lambda_1`` of equation 8.
        smoothing (float): Standard deviation in pixels of a Gaussian over the map.
    """

    title = "GAM (global)"
    reads = "pixels"

    def __init__(
        self,
        image_size: tuple[int, int],
        descriptor: PatchDescriptor,
        encoder: TokenEncoder,
        lambda_mse: float = 5.0,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        del image_size, descriptor
        self.lambda_mse = lambda_mse
        self.decoder = TransposedConvDecoder(encoder.dim, scale=encoder.patch_size)
        self.blur = GaussianBlur2d(sigma=smoothing, channels=1) if smoothing > 0 else nn.Identity()

    def loss(self, features: Features) -> dict[str, Tensor]:
        """``lambda_1 MSE`` and ``1 - SSIM``, equations 4, 5 and 8."""
        terms = reconstruction_terms(features.target, self.decoder(features.encoded))
        return {"mse": self.lambda_mse * terms["mse"], "dssim": 1 - terms["ssim"]}

    def score(self, features: Features) -> tuple[Tensor, ...]:
        """Squared error of every pixel, the mean over its channels, ``(B, 1, H, W)``."""
        return ((features.target - self.decoder(features.encoded)).square().mean(1, keepdim=True),)

    def anomaly_map(self, scores: tuple[Tensor, ...]) -> Tensor:
        """The errors, smoothed."""
        return self.blur(scores[0].float())

    def panels(self, features: Features) -> dict[str, Tensor]:
        """The reconstruction."""
        return {"reconstruction": (self.decoder(features.encoded) + 1) / 2}


class DescriptorReconstruction(Branch):
    """The descriptors of all tokens from one low-dimensional code of the image, see :class:`DescriptorDecoder`.

    Args:
        image_size (tuple[int, int]): Height and width of the images in pixels.
        descriptor (PatchDescriptor): Whose descriptors are reconstructed.
        encoder (TokenEncoder): An encoder that reads descriptors.
        code (int): Length of the code.
        lambda_mse (float): Weight of the squared error, equation 8.
        standardize (bool): Standardise errors by mean and standard deviation of their location on normals.
        smoothing (float): Standard deviation in pixels of a Gaussian over the map.
    """

    title = "GAM (global)"
    reads = "descriptors"

    def __init__(
        self,
        image_size: tuple[int, int],
        descriptor: PatchDescriptor,
        encoder: TokenEncoder,
        code: int = 64,
        lambda_mse: float = 5.0,
        standardize: bool = True,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.lambda_mse = lambda_mse
        self.standardize = standardize
        self.decoder = DescriptorDecoder(encoder.dim, descriptor.channels, encoder.grid.shape, code)
        self.locations = LocationStatistics(encoder.grid.shape)
        self.to_pixels = Resample(encoder.grid, pixel_grid(image_size), smoothing)

    @torch.no_grad()
    def fit(self, normals: Normals) -> None:
        """Start from the principal components of the normals."""
        self.decoder.fit_components(torch.cat([features.target for features, _ in normals]))

    def loss(self, features: Features) -> dict[str, Tensor]:
        """``lambda_1 MSE``, equation 8."""
        reconstruction = self.decoder(features.target, features.encoded)
        return {"mse": self.lambda_mse * F.mse_loss(reconstruction, features.target)}

    def score(self, features: Features) -> tuple[Tensor, ...]:
        """Root mean square error of every token, ``(B, h', w')``."""
        squared = (features.target - self.decoder(features.target, features.encoded)).square().mean(1)
        return (squared.sqrt(),)

    def anomaly_map(self, scores: tuple[Tensor, ...]) -> Tensor:
        """Linear interpolation between the centres of the tokens."""
        return self._to_image(self.locations(scores[0]) if self.standardize else scores[0])

    @torch.no_grad()
    def calibrate(self, scores: tuple[Tensor, ...]) -> Tensor:
        """Learn the statistics of every location."""
        return self._to_image(self.locations.fit(scores[0]) if self.standardize else scores[0])

    def _to_image(self, cells: Tensor) -> Tensor:
        return self.to_pixels(cells.float()).unsqueeze(1)
