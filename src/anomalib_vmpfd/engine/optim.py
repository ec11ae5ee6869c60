# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Optimizers: which parameters decay, and the schedule of the learning rate."""

from typing import Any, Literal

import torch
from torch import nn

LrSchedule = Literal["cosine", "constant"]


def is_trained(module: nn.Module) -> bool:
    """Whether a module has any parameter that gradients change."""
    return any(parameter.requires_grad for parameter in module.parameters())


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


def adamw(
    module: nn.Module,
    lr: float,
    weight_decay: float,
    schedule: LrSchedule,
    steps: float,
) -> dict[str, Any] | None:
    """AdamW for Lightning's ``configure_optimizers``.

    Args:
        module (nn.Module): Whose trainable parameters are optimised.
        lr (float): Learning rate.
        weight_decay (float): Weight decay, see :func:`weight_decay_groups`.
        schedule (str): ``"cosine"`` to zero over the training or ``"constant"``.
        steps (float): Length of the training in steps.

    Returns:
        dict[str, Any] | None: Optimizer and schedule; ``None`` where nothing is trained.
    """
    groups = weight_decay_groups(module, weight_decay)
    if not groups:
        return None
    optimizer = torch.optim.AdamW(groups, lr=lr)
    if schedule == "constant":
        return {"optimizer": optimizer}
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, int(steps)))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
