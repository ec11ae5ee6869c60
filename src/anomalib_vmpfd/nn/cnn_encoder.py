# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Convolutional encoder, the conventional autoencoder that table 5 compares the ViM encoder with."""

from itertools import pairwise

from torch import Tensor, nn

from .image_size import check_image_size, check_images


class CnnEncoder(nn.Module):
    """Strided convolutions with BN and ReLU from an image to features, callable like ``VisionMambaEncoder``.

    Widths double up to ``1.5 * dim`` before the last layer: with patches of 32 pixels and ``dim`` 192 that makes
    1.76 M parameters beside 1.73 M of four ViM blocks, so that the comparison is about the architecture.

    Args:
        image_size (tuple[int, int]): Height and width of the images in pixels, multiples of ``patch_size``.
        patch_size (int): Image size over feature size, a power of two.
        in_channels (int): Channels of the images.
        dim (int): Channels of the features.

    Raises:
        ValueError: If the patch size is not a power of two or does not divide the image size.

    Example:
        >>> CnnEncoder((256, 256))(torch.randn(2, 3, 256, 256)).shape
        torch.Size([2, 192, 8, 8])
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        patch_size: int = 32,
        in_channels: int = 3,
        dim: int = 192,
    ) -> None:
        super().__init__()
        self.image_size = check_image_size(image_size, patch_size)
        halvings = patch_size.bit_length() - 1
        if patch_size < 1 or patch_size != 2**halvings:
            msg = f"The CNN encoder's patch size must be a power of two, got {patch_size}."
            raise ValueError(msg)
        widths = [in_channels, *(max(1, 3 * dim // 2 // 2**k) for k in reversed(range(halvings - 1))), dim]
        kernel, stride = 4, 2
        if patch_size == 1:
            # cells that were described before: nothing to shrink, only neighbours to see
            widths, kernel, stride = [in_channels, dim, dim], 3, 1
        layers: list[nn.Module] = []
        for width, out_width in pairwise(widths):
            layers += [
                nn.Conv2d(width, out_width, kernel_size=kernel, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(out_width),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images (Tensor): Images of shape ``(b, in_channels, H, W)``.

        Returns:
            Tensor: Features of shape ``(b, dim, H / patch_size, W / patch_size)``.

        Raises:
            ValueError: If the images are not of the size given to the constructor.
        """
        check_images(images, self.image_size)
        return self.layers(images)
