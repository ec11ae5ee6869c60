# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Mixture density head: the conditional density of a patch descriptor.

Paper: Bishop, "Mixture Density Networks", 1994, as used by VMPFD-AD, equations 1-3, 6, 7, 12 and 13.
"""

import math
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Mixture(NamedTuple):
    """Parameters of a Gaussian mixture in every cell.

    Attributes:
        log_pi (Tensor): Logarithm of the weights, ``(B, K, h, w)``.
        mu (Tensor): Means, ``(B, K, C, h, w)``.
        sigma (Tensor): Standard deviations, ``(B, K, C, h, w)``.
    """

    log_pi: Tensor
    mu: Tensor
    sigma: Tensor


class MixtureDensityHead(nn.Module):
    """Three-layer network from ``x`` to the mixture ``p(y | x)`` in every cell (equations 1-3).

    Args:
        in_channels (int): Channels of ``x``.
        target_channels (int): Channels ``C`` of ``y``.
        num_components (int): Number ``K`` of Gaussians.
        hidden (int): Width of the two hidden layers.
        beta (float): Factor in ``sigma = log(1 + exp(beta x))``, equation 3.
        sigma_floor (float): Added to sigma; keeps the likelihood bounded where the normals hardly vary.
        covariance (str): ``"diagonal"``, equation 3, or ``"full"``, the text of section 2.2: every component has a
            learnt shape of its own, scaled by its predicted sigma.

    Example:
        >>> head = MixtureDensityHead(8, 16, num_components=4)
        >>> head.nll(torch.randn(2, 16, 5, 5), head(torch.randn(2, 8, 5, 5))).shape
        torch.Size([2, 5, 5])
    """

    def __init__(
        self,
        in_channels: int,
        target_channels: int,
        num_components: int = 10,
        hidden: int = 256,
        beta: float = 1.0,
        sigma_floor: float = 0.05,
        covariance: Literal["diagonal", "full"] = "diagonal",
    ) -> None:
        super().__init__()
        self.num_components = num_components
        self.beta = beta
        self.sigma_floor = sigma_floor
        self.trunk = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
        )
        self.pi = nn.Conv2d(hidden, num_components, 1)
        self.mu = nn.Conv2d(hidden, num_components * target_channels, 1)
        self.sigma = nn.Conv2d(hidden, num_components * target_channels, 1)
        # components start apart, or all of them would learn the same
        nn.init.normal_(self.mu.bias)
        self.shape: nn.Parameter | None = None
        if covariance == "full":
            # strictly lower part of the inverse Cholesky factor of each component's shape; its diagonal is one
            self.shape = nn.Parameter(torch.zeros(num_components, target_channels, target_channels))
        elif covariance != "diagonal":
            msg = f"Unknown covariance {covariance!r}; choose 'diagonal' or 'full'."
            raise ValueError(msg)

    def forward(self, x: Tensor) -> Mixture:
        """Predict the mixture from ``x`` of shape ``(B, in_channels, h, w)``, equation 12."""
        features = self.trunk(x)
        log_pi = F.log_softmax(self.pi(features).float(), dim=1)
        mu, sigma = (
            rearrange(layer(features).float(), "b (k c) h w -> b k c h w", k=self.num_components)
            for layer in (self.mu, self.sigma)
        )
        return Mixture(log_pi, mu, F.softplus(self.beta * sigma) + self.sigma_floor)

    def nll(self, y: Tensor, mixture: Mixture) -> Tensor:
        """Negative log-likelihood of ``y``, equations 7 and 13.

        Args:
            y (Tensor): Targets of shape ``(B, C, h, w)``.
            mixture (Mixture): The predicted mixture.

        Returns:
            Tensor: NLL in nats of shape ``(B, h, w)``.
        """
        residual = y.float().unsqueeze(1) - mixture.mu
        if self.shape is not None:
            lower = torch.tril(self.shape, diagonal=-1)
            residual = residual + torch.einsum("kij, bkjhw -> bkihw", lower, residual)
        log_density = -0.5 * (residual / mixture.sigma).square().sum(2) - mixture.sigma.log().sum(2)
        constant = 0.5 * math.log(2 * math.pi) * y.shape[1]
        return constant - torch.logsumexp(mixture.log_pi + log_density, dim=1)

    def loss(self, y: Tensor, x: Tensor) -> Tensor:
        """NLL of ``y`` given ``x``, ``(B, h, w)``."""
        return self.nll(y, self(x))

    def score(self, y: Tensor, x: Tensor) -> Tensor:
        """Anomaly score of every cell, ``(B, h, w)``: the same NLL, equation 13."""
        return self.nll(y, self(x))
