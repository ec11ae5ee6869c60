# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Decoder of the reconstruction branch that gives back descriptors in place of pixels."""

import torch
from torch import Tensor, nn

from .principal_components import code_length, principal_components


class DescriptorDecoder(nn.Module):
    """Give back the descriptors ``Y`` of an image from one narrow code ``z`` of the whole image.

    No cell can be copied through a code that all cells share: what comes back is what this image should look like as a
    whole. A part that is missing, doubled or misplaced has a large error even where every patch by itself is normal.

    The code begins as the principal components ``P`` of the normals, the best that a linear code can do, and the
    training adds what is not linear: ``z = P Y + a(F)`` and ``Y_hat = P^T z + g(z)``, where ``F`` are the encoder's
    features and both ``a`` and ``g`` start at zero.

    Args:
        dim (int): Channels of the encoder's features.
        out_channels (int): Channels of the descriptors.
        grid (tuple[int, int]): Cells ``(h, w)`` of features and descriptors.
        code (int): Length of the code.
        squeezed (int): Channels of a cell on its way into the code and out of it.

    Example:
        >>> decoder = DescriptorDecoder(192, 256, (8, 8))
        >>> decoder(torch.randn(2, 256, 8, 8), torch.randn(2, 192, 8, 8)).shape
        torch.Size([2, 256, 8, 8])
    """

    components: Tensor

    def __init__(
        self,
        dim: int,
        out_channels: int,
        grid: tuple[int, int],
        code: int = 64,
        squeezed: int = 16,
    ) -> None:
        super().__init__()
        cells = grid[0] * grid[1]
        self.register_buffer("components", torch.zeros(code, out_channels * cells))
        self.to_code = nn.Sequential(nn.Conv2d(dim, squeezed, 1), nn.Flatten(), nn.Linear(squeezed * cells, code))
        self.from_code = nn.Sequential(
            nn.Linear(code, squeezed * cells),
            nn.Unflatten(1, (squeezed, *grid)),
            nn.Conv2d(squeezed, dim, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(dim, out_channels, 1),
        )
        for layer in (self.to_code[-1], self.from_code[-1]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @torch.no_grad()
    def fit_components(self, descriptors: Tensor) -> None:
        """Set the principal components.

        With few images the code gets half as many components as there are images: more of them would only remember
        these images. The others stay zero.

        Args:
            descriptors (Tensor): Normalised descriptors of normal images, ``(N, out_channels, h, w)``.
        """
        count = code_length(len(self.components), len(descriptors))
        self.components.zero_()
        self.components[:count] = principal_components(descriptors.flatten(1), count).to(self.components)

    def forward(self, descriptors: Tensor, features: Tensor) -> Tensor:
        """Reconstruct.

        Args:
            descriptors (Tensor): ``Y``, normalised to zero mean, ``(b, out_channels, h, w)``.
            features (Tensor): ``F``, ``(b, dim, h, w)``.

        Returns:
            Tensor: ``Y_hat`` of shape ``(b, out_channels, h, w)``.
        """
        # components are never transposed: an export would hold them twice
        z = self.components @ descriptors.flatten(1).T + self.to_code(features).T
        return torch.einsum("kb,kd->bd", z, self.components).view_as(descriptors) + self.from_code(z.T)
