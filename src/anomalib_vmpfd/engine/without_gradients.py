# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Distributed trainings of models that train nothing."""

from typing import Any

from lightning import Trainer
from torch import nn

from .optim import is_trained


def take_model_without_gradients(trainer: Trainer, model: nn.Module) -> None:
    """Let a data-parallel strategy take a model in which nothing is trained, as it has no gradients to share.

    ``DistributedDataParallel`` refuses to wrap such a model.

    Args:
        trainer (Trainer): The trainer, during the ``setup`` hook of a fit.
        model (nn.Module): The model.
    """
    strategy: Any = trainer.strategy
    if hasattr(strategy, "configure_ddp") and not is_trained(model):
        strategy.configure_ddp = lambda: None
