# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Vision Mamba (ViM) encoder: bidirectional state-space blocks over image patches.

Paper: Zhu et al., "Vision Mamba: Efficient Visual Representation Learning with Bidirectional State Space Model",
ICML 2024, https://arxiv.org/abs/2401.09417. Released weights (hustvl/Vim, Apache-2.0) load.
"""

import math
from collections import OrderedDict
from typing import Any

import torch
from einops import rearrange
from timm.layers import lecun_normal_
from torch import Tensor, nn

from .image_size import check_image_size, check_images
from .vision_mamba_block import VisionMambaBlock


class VisionMambaEncoder(nn.Module):
    """Patches, positions and ViM blocks, equation 9 of the VMPFD-AD paper.

    Released Vim checkpoints load with ``load_state_dict``, given their image and patch size, width and depth. They
    carry a class token and a head; this encoder has neither, as every token is a cell of the feature map that the
    decoder and the density head read, and drops them on loading.

    Args:
        image_size (tuple[int, int]): Height and width of the images in pixels, multiples of ``patch_size``.
        patch_size (int): Side of a patch in pixels.
        in_channels (int): Channels of the images.
        dim (int): Width of the tokens.
        depth (int): Number of ViM blocks; 0 leaves the patch embedding alone (figure 2 of the paper).
        state_dim (int): State size N of each channel.
        divide_directions (bool): ``True`` is the released ViM, ``False`` the sum of the VMPFD-AD paper.
        backend (str): Backend of the selective scan.

    Raises:
        ValueError: If the image size is not a multiple of the patch size.

    Example:
        >>> VisionMambaEncoder((256, 256))(torch.randn(2, 3, 256, 256)).shape
        torch.Size([2, 192, 8, 8])
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        patch_size: int = 32,
        in_channels: int = 3,
        dim: int = 192,
        depth: int = 4,
        state_dim: int = 16,
        divide_directions: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.image_size = check_image_size(image_size, patch_size)
        self.grid = (image_size[0] // patch_size, image_size[1] // patch_size)
        projection = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)
        self.patch_embed = nn.Sequential(OrderedDict(proj=projection))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1], dim))
        self.pos_embed._no_weight_decay = True  # noqa: SLF001
        self.layers = nn.ModuleList(
            VisionMambaBlock(dim, state_dim, divide_directions=divide_directions, backend=backend) for _ in range(depth)
        )
        self.norm_f = nn.RMSNorm(dim, eps=1e-5)

        lecun_normal_(projection.weight)
        nn.init.zeros_(projection.bias)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for layer in self.layers:
            # keeps the variance of the residual stream independent of the depth
            nn.init.kaiming_uniform_(layer.mixer.out_proj.weight, a=math.sqrt(5))
            layer.mixer.out_proj.weight.data /= math.sqrt(depth)
        self.register_load_state_dict_pre_hook(_drop_class_token)

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
        tokens = rearrange(self.patch_embed(images), "b d h w -> b (h w) d")
        # the residual stream stays in float32 under autocast
        tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32)) + self.pos_embed
        for layer in self.layers:
            tokens = layer(tokens)
        return rearrange(self.norm_f(tokens), "b (h w) d -> b d h w", h=self.grid[0])


def _drop_class_token(module: VisionMambaEncoder, state_dict: dict[str, Tensor], prefix: str, *_args: Any) -> None:  # noqa: ANN401
    """Turn the state of a released Vim classifier into that of the encoder, in place."""
    if f"{prefix}cls_token" not in state_dict:
        return
    for name in [name for name in state_dict if name.startswith((f"{prefix}cls_token", f"{prefix}head."))]:
        del state_dict[name]
    # the released models insert the class token in the middle of the sequence, with a position of its own
    tokens = module.pos_embed.shape[1]
    positions = state_dict[f"{prefix}pos_embed"]
    if positions.shape[1] == tokens + 1:
        middle = tokens // 2
        state_dict[f"{prefix}pos_embed"] = torch.cat([positions[:, :middle], positions[:, middle + 1 :]], dim=1)
