# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Vision Mamba (ViM) encoder: bidirectional state-space blocks over image patches.

Paper: Zhu et al., "Vision Mamba: Efficient Visual Representation Learning with Bidirectional State Space Model",
ICML 2024, https://arxiv.org/abs/2401.09417. The block is the released "bimamba v2" (hustvl/Vim, Apache-2.0), written
anew after its CUDA path and with its parameter names, so that released weights load.
"""

import math
from collections import OrderedDict
from typing import Any

import torch
from einops import rearrange
from timm.layers import lecun_normal_
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.ops.selective_scan import selective_scan

from .image_shape import nearest_size


class BidirectionalMamba(nn.Module):
    """Mixer of the ViM block: one projection in and out, a convolution and a selective scan for each direction.

    Args:
        dim (int): Width of the tokens.
        state_dim (int): State size N of each channel.
        conv_kernel (int): Length of the causal depthwise convolution.
        expand (int): Inner width over ``dim``.
        divide_directions (bool): Average the two directions as the released code does; ``False`` adds them up.
        backend (str): Backend of the selective scan.
    """

    def __init__(
        self,
        dim: int,
        state_dim: int = 16,
        conv_kernel: int = 4,
        expand: int = 2,
        divide_directions: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        inner_dim = expand * dim
        self.state_dim = state_dim
        self.dt_rank = math.ceil(dim / 16)
        self.divide_directions = divide_directions
        self.backend = backend

        self.in_proj = nn.Linear(dim, 2 * inner_dim, bias=False)
        self.conv1d, self.conv1d_b = (
            nn.Conv1d(inner_dim, inner_dim, conv_kernel, padding=conv_kernel - 1, groups=inner_dim) for _ in range(2)
        )
        self.x_proj, self.x_proj_b = (nn.Linear(inner_dim, self.dt_rank + 2 * state_dim, bias=False) for _ in range(2))
        self.dt_proj, self.dt_proj_b = (nn.Linear(self.dt_rank, inner_dim) for _ in range(2))
        self.A_log, self.A_b_log = (nn.Parameter(torch.empty(inner_dim, state_dim)) for _ in range(2))
        self.D, self.D_b = (nn.Parameter(torch.empty(inner_dim)) for _ in range(2))
        self.out_proj = nn.Linear(inner_dim, dim, bias=False)
        for parameter in (self.A_log, self.A_b_log, self.D, self.D_b):
            parameter._no_weight_decay = True  # noqa: SLF001
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start the states as S4D-real and the step sizes log-uniform in [0.001, 0.1], as Mamba does."""
        rates = torch.arange(1, self.state_dim + 1, dtype=torch.float32)
        for A_log, skip, dt_proj in ((self.A_log, self.D, self.dt_proj), (self.A_b_log, self.D_b, self.dt_proj_b)):  # noqa: N806
            A_log.copy_(rates.log().expand_as(A_log))
            skip.fill_(1.0)
            nn.init.uniform_(dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
            dt = torch.exp(torch.rand_like(dt_proj.bias) * math.log(100.0) + math.log(1e-3))
            # inverse of the softplus
            dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens.

        Args:
            x (Tensor): Tokens of shape ``(b, L, dim)``.

        Returns:
            Tensor: Mixed tokens of shape ``(b, L, dim)``.
        """
        signal, gate = rearrange(self.in_proj(x), "b l (two e) -> two b e l", two=2)
        # the directions are two groups of channels of one scan: half the launches of two scans, the same numbers
        inputs = [
            self._scan_inputs(signal, self.conv1d, self.x_proj, self.dt_proj),
            self._scan_inputs(signal.flip(-1), self.conv1d_b, self.x_proj_b, self.dt_proj_b),
        ]
        u, delta, B, C = (torch.stack(pair, dim=1) for pair in zip(*inputs, strict=True))  # noqa: N806
        A_log = torch.cat([self.A_log, self.A_b_log])  # noqa: N806
        y = selective_scan(
            u.flatten(1, 2),
            delta.flatten(1, 2),
            -torch.exp(A_log.to(torch.promote_types(A_log.dtype, torch.float32))),
            B,
            C,
            D=torch.cat([self.D, self.D_b]),
            delta_bias=torch.cat([self.dt_proj.bias, self.dt_proj_b.bias]),
            delta_softplus=True,
            backend=self.backend,
        )
        forward, backward = y.chunk(2, dim=1)
        y = (forward + backward.flip(-1)) * F.silu(gate)
        if self.divide_directions:
            y = y / 2
        return self.out_proj(y.transpose(1, 2))

    def _scan_inputs(
        self,
        signal: Tensor,
        conv: nn.Conv1d,
        x_proj: nn.Linear,
        dt_proj: nn.Linear,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return ``u``, ``delta`` ``(b, E, L)``, ``B`` and ``C`` ``(b, N, L)`` of one direction."""
        # padding on both sides, cut to the length: causal in the direction of travel
        u = F.silu(conv(signal)[..., : signal.shape[-1]])
        # matrices of their own, as OpenVINO cannot quantise a stack of them
        projected = x_proj(u.transpose(1, 2))
        dt, B, C = projected.split([self.dt_rank, self.state_dim, self.state_dim], dim=2)  # noqa: N806
        # the bias is added in the scan, in full precision
        delta = F.linear(dt, dt_proj.weight)
        return u, delta.transpose(1, 2), B.transpose(1, 2), C.transpose(1, 2)


class VisionMambaBlock(nn.Module):
    """ViM block ``T_l = T_{l-1} + mixer(norm(T_{l-1}))``, figure 1(c) of the VMPFD-AD paper.

    Args:
        dim (int): Width of the tokens.
        state_dim (int): State size N of each channel.
        conv_kernel (int): Length of the causal depthwise convolution.
        expand (int): Inner width over ``dim``.
        divide_directions (bool): ``True`` is the released ViM, ``(forward + backward) / 2``; ``False`` is the sum of
            the VMPFD-AD paper.
        backend (str): Backend of the selective scan.

    Example:
        >>> VisionMambaBlock(192)(torch.randn(2, 64, 192)).shape
        torch.Size([2, 64, 192])
    """

    def __init__(
        self,
        dim: int,
        state_dim: int = 16,
        conv_kernel: int = 4,
        expand: int = 2,
        divide_directions: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim, eps=1e-5)
        self.mixer = BidirectionalMamba(dim, state_dim, conv_kernel, expand, divide_directions, backend)

    def forward(self, x: Tensor) -> Tensor:
        """Transform the tokens ``(b, L, dim)``; the residual stream stays in its own type, float32 in the encoder."""
        return x + self.mixer(self.norm(x)).to(x.dtype)


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


def weight_decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters for an optimizer: A, D and positions of Mamba must not decay towards zero.

    Args:
        module (nn.Module): Any module that contains ViM blocks or an encoder.
        weight_decay (float): Weight decay of all other parameters.

    Returns:
        list[dict[str, Any]]: Parameter groups, the decayed one first; empty groups are left out.

    Example:
        >>> torch.optim.AdamW(weight_decay_groups(VisionMambaEncoder((64, 64)), 1e-4), lr=1e-3).defaults["lr"]
        0.001
    """
    decayed: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            (exempt if getattr(parameter, "_no_weight_decay", False) else decayed).append(parameter)
    groups = ({"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def check_image_size(image_size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Return the image size as a tuple, or say how to make it fit the patches."""
    height, width = image_size
    if height % patch_size or width % patch_size or min(height, width) < patch_size:
        nearest = nearest_size(height, width, patch_size)
        msg = (
            f"The image size {height}x{width} is not a multiple of the patch size {patch_size}; "
            f"use {nearest[0]}x{nearest[1]} or another patch size."
        )
        raise ValueError(msg)
    return height, width


def check_images(images: Tensor, image_size: tuple[int, int]) -> None:
    """Refuse images of another size than the encoder was built for."""
    if images.shape[-2:] != image_size:
        msg = (
            f"The encoder was built for images of {image_size[0]}x{image_size[1]} pixels and got "
            f"{images.shape[-2]}x{images.shape[-1]}; resize the images in the pre-processor or build the model with "
            "this image size."
        )
        raise ValueError(msg)


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
