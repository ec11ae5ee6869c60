# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A prediction that goes on where an earlier one ended."""

import copy
from collections.abc import Collection

from anomalib.data import PredictDataset
from lightning import Trainer
from torch.utils.data import DataLoader


def restrict_to_unfinished(trainer: Trainer, finished: Collection[str]) -> None:
    """Let a prediction read only images that are not finished.

    Args:
        trainer (Trainer): The trainer, during the ``setup`` hook of a prediction.
        finished (Collection[str]): Paths of the images that are.

    Raises:
        ValueError: If it reads other data than folders or files of images.
    """
    source = trainer.predict_loop._data_source  # noqa: SLF001
    loaders = source.instance if isinstance(source.instance, list) else [source.instance]
    if not all(isinstance(getattr(loader, "dataset", None), PredictDataset) for loader in loaders):
        msg = "Only predictions of a folder or file of images can be resumed, as of `--data FOLDER`; leave out resume."
        raise ValueError(msg)
    source.instance = [_without(loader, finished) for loader in loaders]


def _without(loader: DataLoader, finished: Collection[str]) -> DataLoader:
    dataset = copy.copy(loader.dataset)
    dataset.finished = [path for path in dataset.image_filenames if str(path) in finished]
    dataset.image_filenames = [path for path in dataset.image_filenames if str(path) not in finished]
    return DataLoader(
        dataset,
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
    )
