# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Vision Mamba (ViM) block: a bidirectional state-space mixer with a residual connection.

Paper: Zhu et al., "Vision Mamba: Efficient Visual Representation Learning with Bidirectional State Space Model",
ICML 2024, https://arxiv.org/abs/2401.09417. The block is the released "bimamba v2" (hustvl/Vim, Apache-2.0), written
anew after its CUDA path and with its parameter names, so that released weights load.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.ops.selective_scan import selective_scan


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
        # channels stay innermost in memory from here to the end, as the linear layers and the scan on a CPU want them
        signal, gate = self.in_proj(x).chunk(2, dim=-1)
        # the directions are two groups of channels of one scan: half the launches of two scans, the same numbers
        inputs = [
            self._scan_inputs(signal, self.conv1d, self.x_proj, self.dt_proj),
            self._scan_inputs(signal.flip(1), self.conv1d_b, self.x_proj_b, self.dt_proj_b),
        ]
        u, delta, B, C = (torch.stack(pair, dim=2) for pair in zip(*inputs, strict=True))  # noqa: N806
        A_log = torch.cat([self.A_log, self.A_b_log])  # noqa: N806
        y = selective_scan(
            u.flatten(2).transpose(1, 2),
            delta.flatten(2).transpose(1, 2),
            -torch.exp(A_log.to(torch.promote_types(A_log.dtype, torch.float32))),
            B.permute(0, 2, 3, 1),
            C.permute(0, 2, 3, 1),
            D=torch.cat([self.D, self.D_b]),
            delta_bias=torch.cat([self.dt_proj.bias, self.dt_proj_b.bias]),
            delta_softplus=True,
            backend=self.backend,
        )
        forward, backward = y.transpose(1, 2).chunk(2, dim=-1)
        y = (forward + backward.flip(1)) * F.silu(gate)
        if self.divide_directions:
            y = y / 2
        return self.out_proj(y)

    def _scan_inputs(
        self,
        signal: Tensor,
        conv: nn.Conv1d,
        x_proj: nn.Linear,
        dt_proj: nn.Linear,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return ``u``, ``delta`` ``(b, L, E)``, ``B`` and ``C`` ``(b, L, N)`` of one direction."""
        u = F.silu(causal_conv(signal, conv.weight, conv.bias))
        # matrices of their own, as OpenVINO cannot quantise a stack of them
        dt, B, C = x_proj(u).split([self.dt_rank, self.state_dim, self.state_dim], dim=2)  # noqa: N806
        # the bias is added in the scan, in full precision
        return u, F.linear(dt, dt_proj.weight), B, C


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve every channel with its own taps ``(E, 1, K)`` along the tokens, ``(b, L, E)`` to the same shape."""
    taps = weight.shape[-1]
    # two dimensions, as only they have a layout with the channels innermost; cut to the length, which makes it causal
    y = F.conv2d(x.transpose(1, 2).unsqueeze(2), weight.unsqueeze(2), bias, padding=(0, taps - 1), groups=x.shape[-1])
    return y.squeeze(2)[..., : x.shape[1]].transpose(1, 2)


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
