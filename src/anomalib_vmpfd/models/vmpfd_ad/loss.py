# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Terms of the loss of VMPFD-AD, ``LL + lambda_1 MSE + (1 - SSIM)`` (equation 8), that the reconstruction gives."""

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.ops.structural_similarity import mean_ssim

SSIM_WINDOW = 11


def reconstruction_terms(x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
    """Terms of the reconstruction, equations 4 and 5.

    Args:
        x (Tensor): Input in [-1, 1] of shape ``(B, C, H, W)``.
        x_hat (Tensor): Its reconstruction, of the same shape.

    Returns:
        dict[str, Tensor]: ``mse`` and ``ssim``, the similarity, not the loss.
    """
    x, x_hat = x.float(), x_hat.float()
    # equation 4 divides by the pixels W H, not by the channels too
    mse = x.shape[1] * F.mse_loss(x_hat, x)
    # SSIM compares means, so it wants intensities of one sign
    return {"mse": mse, "ssim": mean_ssim(x, x_hat, SSIM_WINDOW, bounds=(-1.0, 1.0))}
