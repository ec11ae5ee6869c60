# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Encoders of VMPFD-AD: what they read, and the network over it (equation 9, table 5)."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.nn.cnn_encoder import CnnEncoder
from anomalib_vmpfd.nn.grid import Grid, pixel_grid
from anomalib_vmpfd.nn.image_size import check_image_size
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor
from anomalib_vmpfd.nn.vision_mamba import VisionMambaEncoder

Reads = Literal["descriptors", "pixels"]


class TokenEncoder(nn.Module):
    """Tokens of ``patch_size`` x ``patch_size`` pixels; a subclass gives the ``network`` over them.

    Args:
        image_size (tuple[int, int]): Height and width of the images in pixels, multiples of ``patch_size``.
        descriptor (PatchDescriptor): Whose descriptors are read.
        reads (str): ``"descriptors"``, averaged to a token each, or the paper's ``"pixels"``.
        patch_size (int): Side of a token in pixels.

    Attributes:
        grid (Grid): Where the tokens lie in the image.
    """

    network: nn.Module

    def __init__(
        self,
        image_size: tuple[int, int],
        descriptor: PatchDescriptor,
        reads: Reads,
        patch_size: int,
        dim: int,
    ) -> None:
        super().__init__()
        if reads not in {"descriptors", "pixels"}:
            msg = f"Unknown reads={reads!r} in encoder_args; choose 'descriptors' or 'pixels'."
            raise ValueError(msg)
        height, width = check_image_size(image_size, patch_size)
        shape = (height // patch_size, width // patch_size)
        self.reads = reads
        self.patch_size = patch_size
        self.dim = dim
        # a token of descriptors is the mean of cells, and lies where they lie
        cells: Grid = pixel_grid((height, width)) if reads == "pixels" else descriptor.grid
        self.grid = cells.pooled(shape)
        # size, patch and channels of what the network reads
        self._input: tuple[tuple[int, int], int, int] = (
            ((height, width), patch_size, 3) if reads == "pixels" else (shape, 1, descriptor.channels)
        )

    def target(self, images: Tensor | None, descriptors: tuple[Tensor, ...]) -> Tensor:
        """What is encoded, and what a reconstruction gives back.

        Args:
            images (Tensor | None): Images in [0, 1] of shape ``(B, 3, H, W)``, where pixels are read.
            descriptors (tuple[Tensor, ...]): Normalised descriptors of each level, of which the last is read.

        Returns:
            Tensor: Pixels in [-1, 1], as the decoder's tanh, or descriptors averaged to tokens ``(B, C, h', w')``.
        """
        if self.reads == "descriptors":
            return F.adaptive_avg_pool2d(descriptors[-1], self.grid.shape)
        if images is None:
            msg = "An encoder that reads pixels needs the images."
            raise ValueError(msg)
        return 2 * images - 1

    def forward(self, target: Tensor) -> Tensor:
        """Features ``F`` of shape ``(B, dim, h', w')`` of what :meth:`target` gave."""
        return self.network(target)


class VimTokenEncoder(TokenEncoder):
    """The paper's encoder, Vision Mamba.

    Args:
        image_size (tuple[int, int]): Height and width of the images in pixels, multiples of ``patch_size``.
        descriptor (PatchDescriptor): Whose descriptors are read.
        reads (str): ``"descriptors"`` or the paper's ``"pixels"``.
        patch_size (int): Side of a token in pixels.
        dim (int): Width ``d`` of the tokens.
        depth (int): Number of ViM blocks (figure 2).
        divide_directions (bool): Average the two scans of a block instead of adding them up.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        descriptor: PatchDescriptor,
        reads: Reads = "descriptors",
        patch_size: int = 32,
        dim: int = 128,
        depth: int = 2,
        divide_directions: bool = False,
    ) -> None:
        super().__init__(image_size, descriptor, reads, patch_size, dim)
        self.network = VisionMambaEncoder(*self._input, dim, depth, divide_directions=divide_directions)


class CnnTokenEncoder(TokenEncoder):
    """The convolutional encoder of table 5.

    Args:
        image_size (tuple[int, int]): Height and width of the images in pixels, multiples of ``patch_size``.
        descriptor (PatchDescriptor): Whose descriptors are read.
        reads (str): ``"descriptors"`` or ``"pixels"``.
        patch_size (int): Side of a token in pixels.
        dim (int): Width of the tokens.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        descriptor: PatchDescriptor,
        reads: Reads = "descriptors",
        patch_size: int = 32,
        dim: int = 128,
    ) -> None:
        super().__init__(image_size, descriptor, reads, patch_size, dim)
        self.network = CnnEncoder(*self._input, dim)
