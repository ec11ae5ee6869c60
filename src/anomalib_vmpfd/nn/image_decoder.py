# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Transposed-convolution decoder of the reconstruction branch."""

import torch
from torch import Tensor, nn


class TransposedConvDecoder(nn.Module):
    """Decode features to an image: transposed convolutions with BN and ReLU between, tanh last (section 2.1.2).

    Of the ``num_layers`` layers ``log2(scale)`` double the size (kernel 4, stride 2); the others (kernel 3, stride 1)
    come first, where a pixel costs least and neighbouring patches can still agree. Widths are halved by every
    doubling, down to 32, so that no resolution dominates the cost; the paper gives none.

    Args:
        dim (int): Channels of the features.
        out_channels (int): Channels of the image.
        scale (int): Image size over feature size, a power of two; the patch size of the encoder.
        num_layers (int): Number of transposed convolutions.

    Raises:
        ValueError: If the scale is not a power of two or needs more layers.

    Example:
        >>> TransposedConvDecoder(192)(torch.randn(2, 192, 8, 8)).shape
        torch.Size([2, 3, 256, 256])
    """

    def __init__(self, dim: int, out_channels: int = 3, scale: int = 32, num_layers: int = 6) -> None:
        super().__init__()
        doublings = scale.bit_length() - 1
        if scale != 2**doublings or scale < 1:
            msg = f"The decoder's scale (the patch size) must be a power of two, got {scale}."
            raise ValueError(msg)
        if num_layers < max(doublings, 1):
            msg = f"A scale of {scale} needs at least {max(doublings, 1)} decoder layers, got num_layers={num_layers}."
            raise ValueError(msg)
        layers: list[nn.Module] = []
        width = dim
        for index in range(num_layers):
            last = index == num_layers - 1
            doubling = index >= num_layers - doublings
            out_width = out_channels if last else max(width // 2, min(width, 32)) if doubling else width
            layers.append(
                nn.ConvTranspose2d(
                    width,
                    out_width,
                    kernel_size=4 if doubling else 3,
                    stride=2 if doubling else 1,
                    padding=1,
                    bias=last,
                ),
            )
            layers += [nn.Tanh()] if last else [nn.BatchNorm2d(out_width), nn.ReLU(inplace=True)]
            width = out_width
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Decode features.

        Args:
            features (Tensor): Features of shape ``(b, dim, h, w)``.

        Returns:
            Tensor: Images in [-1, 1] of shape ``(b, out_channels, scale * h, scale * w)``.
        """
        if features.device.type == "cpu":
            # a third off the time of transposed convolutions, forward and backward
            features = features.contiguous(memory_format=torch.channels_last)
        return self.layers(features)
