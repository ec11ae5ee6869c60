# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The loss of PRN, ``smooth L1 + lambda focal`` (equation 5)."""

from kornia.losses import binary_focal_loss_with_logits
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

ALPHA, GAMMA = 0.5, 4.0  # section 4.1


def segmentation_terms(logits: Tensor, masks: Tensor, lambda_focal: float) -> dict[str, Tensor]:
    """Terms of the loss between the anomaly score map ``M_o`` and the ground truth ``M``.

    Args:
        logits (Tensor): Logits of ``M_o``, ``(B, 1, H, W)``.
        masks (Tensor): ``M``, 1 where a pixel is anomalous, of the same shape.
        lambda_focal (float): Weight of the focal loss.

    Returns:
        dict[str, Tensor]: ``smooth_l1`` and ``focal``, the latter with its weight; means over all pixels.
    """
    logits, masks = logits.float(), masks.float()
    focal = binary_focal_loss_with_logits(logits, masks, alpha=ALPHA, gamma=GAMMA, reduction="mean")
    return {"smooth_l1": F.smooth_l1_loss(logits.sigmoid(), masks), "focal": lambda_focal * focal}
