# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Tells of data that are split anew at every run, whatever the seed of the model."""

import logging
from typing import Any

logger = logging.getLogger(__name__)

DRAWN = ("from_train", "from_test", "synthetic")


def warn_of_unseeded_split(datamodule: Any) -> None:  # noqa: ANN401
    """Warn where a datamodule drew its splits without a seed: the same command then gives other results.

    Args:
        datamodule (Any): anomalib's datamodule of a training, or anything else, which is left alone.
    """
    if getattr(datamodule, "seed", 0) is not None:
        return
    modes = {name: getattr(datamodule, f"{name}_split_mode", "none") for name in ("val", "test")}
    modes = {name: str(getattr(mode, "value", mode)) for name, mode in modes.items()}
    drawn = [f"{name}_split_mode={mode}" for name, mode in modes.items() if mode in DRAWN]
    if modes["test"] == "from_dir" and getattr(datamodule, "normal_test_dir", "given") is None:
        drawn.append("no normal_test_dir")
    if drawn:
        logger.warning(
            f"The data are split at random without a seed ({', '.join(drawn)}): the next run will see another split, "
            "whatever the seed of the model. Give --data.seed 42, or seed=42 to the datamodule, for the same results."
        )
