# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The normal training images of one fit: which of them are held out, and how they are read."""

import copy
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from anomalib.data import Batch
from torch.utils.data import DataLoader, Dataset, RandomSampler, SequentialSampler, Subset
from torchvision.transforms.v2 import Resize

from .calibration import MIN_IMAGES_TO_HOLD_OUT, held_out_indices
from .image_shape import usual_ratio, warn_if_squeezed

logger = logging.getLogger(__name__)

BATCH_SIZE = 16


class NormalImages:
    """Normal training images of a fit, of any data loader whose data set has a length.

    They are known by their index in the data set. Images that the data set labels as anomalous take no part, neither in
    learning nor in calibration; a model that learns defects finds them apart.

    Args:
        loader (DataLoader): The training data.
        held_out (float): Share of the images to hold out.
        seed (int): Seed of that choice.
        learns_defects (bool): Whether the model has a use for images that are labelled anomalous.

    Attributes:
        defects (list[int]): Indices of the images that are labelled anomalous, for a model that learns them.
        learnt (list[int]): Indices of the images to learn from.
        calibration (list[int]): Indices of the held-out images; the learnt ones where there are too few to hold any
            out.

    Raises:
        ValueError: If the data set has no length, or no normal image.
    """

    def __init__(self, loader: DataLoader, held_out: float, seed: int, *, learns_defects: bool = False) -> None:
        _check(loader)
        self._loader = loader
        anomalous = _labelled_anomalous(loader.dataset)
        self.defects = sorted(anomalous) if learns_defects else []
        if anomalous and not learns_defects:
            logger.warning(f"{len(anomalous)} training images are labelled anomalous and take no part in the training.")
        normal = [index for index in range(len(loader.dataset)) if index not in anomalous]
        if not normal:
            msg = "There is no normal image among the training data; this model learns from normal images."
            raise ValueError(msg)
        held = {normal[position] for position in held_out_indices(len(normal), held_out, seed)}
        if len(normal) < MIN_IMAGES_TO_HOLD_OUT:
            logger.warning(
                f"Only {len(normal)} training images: none is held out, and maps and thresholds are calibrated on the "
                f"images that the model learns. Give at least {MIN_IMAGES_TO_HOLD_OUT} normal images.",
            )
        self.holds_out = bool(held)
        self.learnt = [index for index in normal if index not in held]
        self.calibration = sorted(held) or self.learnt

    @property
    def paths(self) -> list[str]:
        """Files of the training images; none where the data set does not tell."""
        return _paths(self._loader.dataset)

    def leave_out(self, numbers: Sequence[int]) -> None:
        """Take no threshold from some of the learnt images, given by their position in ``learnt``, and name them."""
        out = [self.learnt[number] for number in numbers]
        left_out = set(out)
        self.calibration = [index for index in self.calibration if index not in left_out]
        paths = self.paths
        named = "\n  ".join(paths[index] if paths else f"image {index} of the data set" for index in out)
        logger.warning(
            f"{len(out)} of {len(self.learnt)} training images are left out, those that belong least first:\n  {named}"
        )

    def warn_if_squeezed(self, image_size: tuple[int, int]) -> None:
        """Tell of a better size where this one distorts the images."""
        warn_if_squeezed(self.paths, image_size)

    def training_loader(self) -> DataLoader:
        """The training data without what must not be learnt."""
        loader = self._loader
        if len(self.learnt) == len(loader.dataset):
            return loader
        shared = {
            "num_workers": loader.num_workers,
            "collate_fn": loader.collate_fn,
            "pin_memory": loader.pin_memory,
            "timeout": loader.timeout,
            "worker_init_fn": loader.worker_init_fn,
            "multiprocessing_context": loader.multiprocessing_context,
            "prefetch_factor": loader.prefetch_factor,
            "persistent_workers": loader.persistent_workers,
        }
        if not _in_whole_batches(loader):
            kept = _LearntBatches(loader.batch_sampler, set(self.learnt))
            return DataLoader(loader.dataset, batch_sampler=kept, **shared)
        shuffle = isinstance(loader.sampler, RandomSampler)
        # a last batch that was dropped must not drop all of a small set
        drop_last = loader.drop_last and len(self.learnt) >= loader.batch_size
        return DataLoader(
            Subset(loader.dataset, self.learnt),
            batch_size=loader.batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            generator=loader.generator,
            **shared,
        )

    def read(self, indices: Sequence[int], image_size: tuple[int, int] | None) -> Iterator[Batch]:
        """Read images in order and without augmentation.

        Args:
            indices (Sequence[int]): Which of the training images.
            image_size (tuple[int, int] | None): Height and width that they are resized to; ``None`` leaves them.

        Yields:
            Batch: Images in [0, 1] of shape ``(B, 3, H, W)`` and what the data set says of them.

        Raises:
            ValueError: If one of them is labelled anomalous, unless only such images were asked for.
        """
        loader = self._loader
        dataset = loader.dataset
        if hasattr(dataset, "augmentations"):
            dataset = copy.copy(dataset)
            dataset.augmentations = None if image_size is None else Resize(image_size, antialias=True)
        batches = DataLoader(
            Subset(dataset, indices),
            # the trainer's batch size must not reach what is learnt here, not even by rounding
            batch_size=min(BATCH_SIZE, loader.batch_size or BATCH_SIZE),
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
        )
        normal = not set(indices) <= set(self.defects)
        for batch in batches:
            if normal and getattr(batch, "gt_label", None) is not None and batch.gt_label.any():
                msg = (
                    f"An image of the training data is labelled anomalous ({_first_anomalous(batch)}), and would be "
                    "learnt and calibrated on as normal; take it out of the training data."
                )
                raise ValueError(msg)
            yield batch


class _LearntBatches:
    """Batches of a user's own sampler without the images that are held out."""

    def __init__(self, batches: Any, learnt: set[int]) -> None:  # noqa: ANN401
        self._batches = batches
        self._learnt = learnt

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches:
            if kept := [index for index in batch if index in self._learnt]:
                yield kept

    def __len__(self) -> int:
        return len(self._batches)


def _in_whole_batches(loader: DataLoader) -> bool:
    """Whether a loader gives every image once, in order or shuffled, so that fewer images are fewer batches."""
    sampler = loader.sampler
    shuffles = type(sampler) is RandomSampler and not sampler.replacement and len(sampler) == len(loader.dataset)
    # a batch sampler of a user's own leaves the batch size open; exact types, as what it would do is not known
    return loader.batch_size is not None and (shuffles or type(sampler) is SequentialSampler)


def batches_an_epoch(loader: DataLoader) -> int:
    """Batches of a data loader, whatever is held out of it later."""
    _check(loader)
    return max(1, len(loader))


def image_ratio(loader: DataLoader) -> float:
    """Height over width of the images of a data loader, the median of some of their files, else of the first image."""
    _check(loader)
    ratio = usual_ratio(_paths(loader.dataset))
    if ratio is None:
        height, width = loader.dataset[0].image.shape[-2:]
        ratio = height / width
    return ratio


def _check(loader: DataLoader) -> None:
    if not isinstance(loader, DataLoader) or not hasattr(loader.dataset, "__len__"):
        msg = (
            "The training data must be one DataLoader over a data set with a length, as normal images are held out "
            f"by their index; got {type(getattr(loader, 'dataset', loader)).__name__}."
        )
        raise ValueError(msg)


def _paths(dataset: Dataset) -> list[str]:
    samples = getattr(dataset, "samples", None)
    return [] if samples is None or "image_path" not in samples else [str(path) for path in samples["image_path"]]


def _labelled_anomalous(dataset: Dataset) -> set[int]:
    samples = getattr(dataset, "samples", None)
    if samples is None or "label_index" not in samples:
        return set()
    return {index for index, label in enumerate(samples["label_index"]) if label == 1}


def _first_anomalous(batch: Batch) -> str:
    position = int(batch.gt_label.long().argmax())
    return batch.image_path[position] if batch.image_path else f"position {position} of a batch"
