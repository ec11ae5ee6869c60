# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The normal training images of one fit: which of them are held out, and what the frozen descriptor says of them."""

import copy
import logging
from collections.abc import Iterator, Sequence

import torch
from anomalib.data import Batch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.transforms.v2 import Resize
from tqdm import tqdm

from .calibration import MIN_IMAGES_TO_HOLD_OUT, held_out_indices
from .feature_cache import FeatureCache
from .image_shape import warn_if_squeezed
from .patch_descriptor import PatchDescriptor

logger = logging.getLogger(__name__)

BATCH_SIZE = 16


class NormalImages:
    """Normal training images of a running fit, of any of anomalib's datamodules.

    Args:
        trainer (Trainer): The trainer, once its training data is set up.
        descriptor (PatchDescriptor): The frozen descriptor.
        image_size (tuple[int, int]): Height and width in pixels that images are resized to.
        held_out (float): Share of the images to hold out.
        seed (int): Seed of that choice.
        cache_mb (float): Memory in megabytes for the descriptors of images that are not augmented.

    Attributes:
        learnt (list[int]): Indices of the images to learn from.
        calibration (list[int]): Indices of the held-out images; all images where there are too few to hold any out.
        batch_size (int): Images in a batch of :meth:`batches`.
    """

    def __init__(
        self,
        trainer: Trainer,
        descriptor: PatchDescriptor,
        image_size: tuple[int, int],
        held_out: float,
        seed: int,
        cache_mb: float,
    ) -> None:
        self._trainer = trainer
        self._descriptor = descriptor
        self._image_size = image_size
        paths = [str(path) for path in trainer.train_dataloader.dataset.samples["image_path"]]
        indices = held_out_indices(len(paths), held_out, seed)
        if not indices and held_out:
            logger.warning(
                f"Only {len(paths)} training images: none is held out, and maps and thresholds are calibrated on the "
                f"images that the model learns. Give at least {MIN_IMAGES_TO_HOLD_OUT} normal images.",
            )
        if trainer.is_global_zero:
            warn_if_squeezed(paths, image_size)
        self._held_out = frozenset(paths[i] for i in indices)
        self.learnt = sorted(set(range(len(paths))) - set(indices))
        self.calibration = indices or self.learnt
        # the trainer's batch size must not reach what is learnt here, not even by rounding
        self.batch_size = min(BATCH_SIZE, trainer.train_dataloader.batch_size)
        augmented = getattr(trainer.datamodule, "train_augmentations", None) is not None
        self._cache = None if augmented else FeatureCache(cache_mb)

    @property
    def holds_out(self) -> bool:
        """Whether any image is held out; where none is, the learnt ones calibrate."""
        return bool(self._held_out)

    def is_held_out(self, path: str) -> bool:
        """Whether the image must not be learnt."""
        return path in self._held_out

    def describe(self, images: Tensor, paths: Sequence[str]) -> Tensor:
        """Descriptors ``(B, C, h, w)`` of images ``(B, 3, H, W)``, from the cache where it has them."""
        if self._cache is None:
            return self._describe(images)
        cached = self._cache.get(paths, images.device)
        if cached is None:
            described = self._describe(images)
            self._cache.put(paths, described)
            # the cached precision from the first epoch on, or a resumed training would differ
            cached = self._cache.get(paths, images.device)
        return described if cached is None else cached

    def _describe(self, images: Tensor) -> Tensor:
        # on a CPU the activations of one image stay in its cache, which saves a third of the time
        chunk = 1 if images.device.type == "cpu" else len(images)
        return torch.cat([self._descriptor.describe(part) for part in images.split(chunk)])

    def batches(self, indices: Sequence[int], description: str, device: torch.device) -> Iterator[Batch]:
        """Images in order, without augmentation, with a progress bar.

        Args:
            indices (Sequence[int]): Which of the training images.
            description (str): Title of the progress bar.
            device (torch.device): Where the images go.

        Yields:
            Batch: Images in [0, 1] of shape ``(B, 3, H, W)`` and their paths.
        """
        loader = self._trainer.train_dataloader
        dataset = copy.copy(loader.dataset)
        dataset.augmentations = Resize(self._image_size, antialias=True)
        batches = DataLoader(
            Subset(dataset, indices),
            batch_size=self.batch_size,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
        )
        for batch in tqdm(batches, description, leave=False, disable=not self._trainer.is_global_zero):
            batch.image = batch.image.to(device)
            yield batch
