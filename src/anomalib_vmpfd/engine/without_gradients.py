# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Distributed trainings, and those in float16, of models that train nothing."""

from typing import Any

from lightning import Trainer
from torch import nn

from .optim import is_trained


def take_model_without_gradients(trainer: Trainer, model: nn.Module) -> None:
    """Let data-parallel strategies and float16 take a model in which nothing is trained, as it has no gradients.

    ``DistributedDataParallel`` refuses to wrap such a model, and ``GradScaler`` to step without one.

    Args:
        trainer (Trainer): The trainer, during the ``setup`` hook of a fit.
        model (nn.Module): The model.
    """
    if is_trained(model):
        return
    strategy: Any = trainer.strategy
    if hasattr(strategy, "configure_ddp"):
        strategy.configure_ddp = lambda: None
    precision: Any = trainer.precision_plugin
    if getattr(precision, "scaler", None) is not None:
        precision.scaler = None
