# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Length of a model's own training recipe, for trainings that are given none."""

import inspect
import logging
from typing import Any

from lightning import Trainer

logger = logging.getLogger(__name__)

LIGHTNING_DEFAULT_EPOCHS = 1000


def wants_recipe_length(trainer: Trainer) -> bool:
    """Whether a training was given no limit, so that it ends after the model's own number of epochs.

    Lightning would run 1,000 epochs. A value of the user's always wins: anomalib's engine remembers the arguments that
    its user gave. A plain ``Trainer`` does not, so there a ``max_epochs`` of exactly 1,000 counts as not given.

    Args:
        trainer (Trainer): The trainer, during the ``setup`` hook of a fit.
    """
    if trainer.max_epochs != LIGHTNING_DEFAULT_EPOCHS or trainer.max_steps != -1:
        return False
    return _engine_arguments().get("max_epochs") is None


def apply_recipe_length(trainer: Trainer, epochs: int) -> None:
    """End the training after ``epochs``."""
    trainer.fit_loop.max_epochs = epochs
    logger.info(f"max_epochs was not given: training for the recipe's {epochs} epochs.")


def _engine_arguments() -> dict[str, Any]:
    """Trainer arguments given to the engine that is running this fit; none where there is no engine."""
    from anomalib.engine import Engine

    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, Engine):
            return caller._cache.args  # noqa: SLF001
        frame = frame.f_back
    return {}
