# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Length of a model's own training recipe, where the user gives none."""

import inspect
import logging
from typing import Any

from lightning import Trainer

logger = logging.getLogger(__name__)

LIGHTNING_DEFAULT_EPOCHS = 1000


def apply_recipe_length(trainer: Trainer, epochs: int) -> None:
    """End the training after ``epochs`` where no limit was given, and validate at its end alone.

    Lightning would run 1,000 epochs. A value of the user's always wins: anomalib's engine remembers the arguments that
    its user gave. A plain ``Trainer`` does not, so there a ``max_epochs`` of exactly 1,000 counts as not given.

    Args:
        trainer (Trainer): The trainer, during the ``setup`` hook of a fit.
        epochs (int): Length of the recipe.
    """
    given = _engine_arguments()
    unlimited = trainer.max_steps == -1 and trainer.max_time is None if hasattr(trainer, "max_time") else True
    default = trainer.max_epochs == LIGHTNING_DEFAULT_EPOCHS and trainer.max_steps == -1 and unlimited
    if default and (given is None or given.get("max_epochs") is None):
        trainer.fit_loop.max_epochs = epochs
        logger.info(f"max_epochs was not given: training for the recipe's {epochs} epochs.")
    validates_by_default = given is not None and all(
        given.get(name) in {None, default}
        for name, default in (("check_val_every_n_epoch", 1), ("val_check_interval", 1.0))
    )
    # nothing is chosen on validation images, so there is nothing to see before the end
    if validates_by_default and trainer.max_epochs and trainer.max_epochs > 0:
        trainer.check_val_every_n_epoch = trainer.max_epochs


def _engine_arguments() -> dict[str, Any] | None:
    """Trainer arguments given to the engine that is running this fit, or ``None`` where there is no engine."""
    from anomalib.engine import Engine

    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, Engine):
            return caller._cache.args  # noqa: SLF001
        frame = frame.f_back
    return None
