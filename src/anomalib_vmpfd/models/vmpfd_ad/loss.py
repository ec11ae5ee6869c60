# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Loss of VMPFD-AD, equation 8."""

import torch
from kornia.metrics import ssim
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

SSIM_WINDOW = 11


class VmpfdAdLoss(nn.Module):
    """Weighted sum of likelihood, squared error and structural similarity, ``LL + lambda_1 MSE + (1 - SSIM)``.

    Args:
        lambda_mse (float): Weight ``lambda_1`` of the squared error.
    """

    def __init__(self, lambda_mse: float = 5.0) -> None:
        super().__init__()
        self.lambda_mse = lambda_mse

    def forward(self, terms: dict[str, Tensor]) -> Tensor:
        """Add up the terms that the model's branches returned: ``nll``, ``mse`` and ``ssim``."""
        weighted = {"nll": lambda v: v, "mse": lambda v: self.lambda_mse * v, "ssim": lambda v: 1 - v}
        return sum(weight(terms[name]) for name, weight in weighted.items() if name in terms)


def reconstruction_terms(x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
    """Terms of the reconstruction, equations 4 and 5.

    Args:
        x (Tensor): Input in [-1, 1] of shape ``(B, C, H, W)``.
        x_hat (Tensor): Its reconstruction, of the same shape.

    Returns:
        dict[str, Tensor]: ``mse`` and ``ssim``, the similarity, not the loss.
    """
    # kornia's filters take a quarter of the time in this layout on a CPU
    x, x_hat = (images.float().contiguous(memory_format=torch.channels_last) for images in (x, x_hat))
    # equation 4 divides by the pixels W H, not by the channels too
    mse = x.shape[1] * F.mse_loss(x_hat, x)
    # SSIM compares means, so it wants intensities of one sign
    similarity = ssim((x + 1) / 2, (x_hat + 1) / 2, SSIM_WINDOW, padding="valid").mean()
    return {"mse": mse, "ssim": similarity}
