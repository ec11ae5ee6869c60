# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Lets Lightning train on the images alone that are not held out."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from anomalib.data import Batch
from lightning import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from .normal_images import NormalImages


def train_on(trainer: Trainer, restrict: Callable[[DataLoader], DataLoader]) -> None:
    """Put ``restrict`` between a fit and its training data, wherever those come from.

    Args:
        trainer (Trainer): The trainer, during the ``setup`` hook of a fit.
        restrict (Callable[[DataLoader], DataLoader]): Makes of the training data what is trained on; called when
            Lightning asks for it, after a checkpoint was loaded.
    """
    trainer.fit_loop._data_source = Restricted(trainer.fit_loop._data_source, restrict)  # noqa: SLF001


class Restricted:
    """Lightning's source of data loaders, with something done to what it gives."""

    def __init__(self, source: Any, restrict: Callable[[Any], Any]) -> None:  # noqa: ANN401
        self.source = source
        self._restrict = restrict

    @property
    def instance(self) -> Any:  # noqa: ANN401
        """Loaders or datamodule, which Lightning sets anew at each run."""
        return self.source.instance

    @instance.setter
    def instance(self, value: Any) -> None:  # noqa: ANN401
        self.source.instance = value

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401, D105
        return getattr(self.source, name)

    def dataloader(self) -> Any:  # noqa: ANN401
        """The loaders."""
        return self._restrict(self.source.dataloader())


class LearntImages:
    """The images that a model learns from, in batches, as often as they are needed.

    Args:
        normals (NormalImages): The training images.
        numbers (Tensor): Which of the learnt images, ``(N,)``, counted from 0.
        image_size (tuple[int, int] | None): Height and width that they are resized to.
        pre_processor (nn.Module | None): Applied to each batch.
        device (torch.device): Where the images go.
        show (bool): Show a progress bar.
    """

    def __init__(
        self,
        normals: NormalImages,
        numbers: Tensor,
        image_size: tuple[int, int] | None,
        pre_processor: nn.Module | None,
        device: torch.device,
        show: bool = True,
    ) -> None:
        self._normals = normals
        self._numbers = numbers
        self._reading = (image_size, pre_processor, device, show)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._numbers)

    def __iter__(self) -> Iterator[tuple[Batch, Tensor]]:
        """Batches and the numbers of their images, ``(B,)``."""
        start = 0
        indices = [self._normals.learnt[number] for number in self._numbers]
        for batch in read(self._normals, indices, "Learning normal images", *self._reading):
            numbers = self._numbers[start : start + len(batch.image)]
            start += len(batch.image)
            yield batch, numbers.to(batch.image.device)

    @property
    def paths(self) -> list[str]:
        """Files of the images; none where the data set does not tell."""
        paths = self._normals.paths
        return [paths[self._normals.learnt[number]] for number in self._numbers] if paths else []

    @property
    def numbers(self) -> Tensor:
        """Numbers of the images, ``(N,)``."""
        return self._numbers

    @property
    def device(self) -> torch.device:
        """Where the images go."""
        return self._reading[2]

    def evenly(self, count: int) -> "LearntImages":
        """At most ``count`` of the images, evenly spaced; they keep their numbers."""
        positions = torch.linspace(0, len(self) - 1, min(count, len(self))).long()
        return self.only(self._numbers[positions])

    def only(self, numbers: Tensor) -> "LearntImages":
        """Some of the images by their numbers, which they keep."""
        return LearntImages(self._normals, numbers, *self._reading)


def read(
    normals: NormalImages,
    indices: list[int],
    description: str,
    image_size: tuple[int, int] | None,
    pre_processor: nn.Module | None,
    device: torch.device,
    show: bool = True,
) -> Iterator[Batch]:
    """Batches of training images as the model gets them, with a progress bar; see :meth:`NormalImages.read`."""
    with tqdm(total=len(indices), desc=description, leave=False, disable=not show, unit="image") as progress:
        for batch in normals.read(indices, image_size):
            batch.image = batch.image.to(device)
            if pre_processor is not None:
                batch.image = pre_processor(batch.image)
            yield batch
            progress.update(len(batch.image))
