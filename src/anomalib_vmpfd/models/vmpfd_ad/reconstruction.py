# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Reconstruction branches of VMPFD-AD: what the whole image should look like, the global anomaly map GAM (eq. 18)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.anomaly.branch import Branch, Features, Normals, Scores
from anomalib_vmpfd.anomaly.raw_map import RawMap
from anomalib_vmpfd.nn.descriptor_decoder import DescriptorDecoder
from anomalib_vmpfd.nn.grid import pixel_grid
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
        del descriptor
        self.lambda_mse = lambda_mse
        self.decoder = TransposedConvDecoder(encoder.dim, scale=encoder.patch_size)
        pixels = pixel_grid(image_size)
        self.maps = nn.ModuleList([RawMap(pixels, image_size, smoothing=smoothing, quantiles_of="pixels")])

    def loss(self, features: Features) -> dict[str, Tensor]:
        """``lambda_1 MSE`` and ``1 - SSIM``, equations 4, 5 and 8."""
        terms = reconstruction_terms(features.target, self.decoder(features.encoded))
        return {"mse": self.lambda_mse * terms["mse"], "dssim": 1 - terms["ssim"]}

    def score(self, features: Features) -> Scores:
        """Squared error of every pixel, the mean over its channels, ``(B, H, W)``."""
        return ((features.target - self.decoder(features.encoded)).square().mean(1),)

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
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.lambda_mse = lambda_mse
        self.decoder = DescriptorDecoder(encoder.dim, descriptor.channels, encoder.grid.shape, code)
        self.maps = nn.ModuleList([RawMap(encoder.grid, image_size, smoothing=smoothing)])

    @torch.no_grad()
    def fit(self, normals: Normals) -> None:
        """Start from the principal components of the normals."""
        self.decoder.fit_components(torch.cat([features.target for features, _ in normals]))

    def loss(self, features: Features) -> dict[str, Tensor]:
        """``lambda_1 MSE``, equation 8."""
        reconstruction = self.decoder(features.target, features.encoded)
        return {"mse": self.lambda_mse * F.mse_loss(reconstruction, features.target)}

    def score(self, features: Features) -> Scores:
        """Root mean square error of every token, ``(B, h', w')``."""
        squared = (features.target - self.decoder(features.target, features.encoded)).square().mean(1)
        return (squared.sqrt(),)
