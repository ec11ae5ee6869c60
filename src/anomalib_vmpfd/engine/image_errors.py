# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Images that cannot be read as they are: which they are, and what to do."""

import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch.utils.data import Subset

# what Pillow turns into 8 bits by cutting everything above 255 off
DEEP_MODES = ("I", "F")
SHOWN = 5


class ImageError(ValueError):
    """Images that are damaged or have more bits than are read; the message names them and the cure."""


def refuse_deep_images(paths: Iterable[str | Path]) -> None:
    """Refuse greyscale images of more than 8 bits, of which all that is above 255 would become white.

    Args:
        paths (Iterable[str | Path]): Image files. Only their headers are read, and no error is raised for files that
            are no images: reading them raises its own.

    Raises:
        ImageError: If an image has more than 8 bits a channel.
    """
    if deep := [str(path) for path in paths if _mode(path).startswith(DEEP_MODES)]:
        msg = (
            f"{_listed(deep)}: more than 8 bits a pixel, of which only values up to 255 would be seen. Convert "
            "all images, of training and test alike, to 8 bits with one common scale, or give a model that has it the "
            "window of grey values to see, as --model.window 1000,20000 or 1%,99% of the training images."
        )
        raise ImageError(msg)


def is_deep(path: str | Path) -> bool:
    """Whether an image file has more than 8 bits a channel; a file that is no image has not."""
    return _mode(path).startswith(DEEP_MODES) or is_deep_colour(path)


def is_deep_colour(path: str | Path) -> bool:
    """Whether an image file has several channels of 16 bits, of which Pillow gives the upper 8."""
    try:
        with Image.open(path) as image:
            return not image.mode.startswith(DEEP_MODES) and any(";16" in str(tile[-1]) for tile in image.tile)
    except OSError:
        return False


def unreadable(paths: Iterable[str | Path]) -> dict[str, str]:
    """Find the files that cannot be read as images.

    Args:
        paths (Iterable[str | Path]): Image files.

    Returns:
        dict[str, str]: What is wrong, by file.
    """
    reasons = {str(path): _what_is_wrong(path) for path in paths}
    return {path: reason for path, reason in reasons.items() if reason}


class ImageErrors(Callback):
    """Refuses what would be misread, and names what cannot be read.

    A damaged image raises one of many errors, most of which do not say in which file. Where loading data fails, all
    files are tried, and those to blame are named; that costs nothing until then.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: PLR6301
        """Refuse training images of more than 8 bits."""
        if not _reads_deep(pl_module):
            refuse_deep_images(_paths(trainer.train_dataloader))

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *args: Any) -> None:  # noqa: ANN401, PLR6301
        """Refuse images of more than 8 bits."""
        del trainer, args
        if not _reads_deep(pl_module):
            refuse_deep_images(getattr(batch, "image_path", None) or ())

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: PLR6301
        """Raise an error that names all unreadable images of the data that was being read.

        Raises:
            ImageError: If there are any.
        """
        del pl_module
        if not isinstance(exception, Exception) or isinstance(exception, ImageError) or not _from_loading(exception):
            return
        loaders = [trainer.train_dataloader]
        for several in (trainer.val_dataloaders, trainer.test_dataloaders, trainer.predict_dataloaders):
            loaders += several if isinstance(several, list) else [several]
        if wrong := unreadable(dict.fromkeys(path for loader in loaders for path in _paths(loader))):
            msg = (
                f"{len(wrong)} of the images cannot be read: "
                f"{_listed([f'{path} ({reason})' for path, reason in wrong.items()])}. Replace or remove them."
            )
            raise ImageError(msg) from exception


def _reads_deep(module: LightningModule) -> bool:
    return getattr(getattr(module, "pre_processor", None), "reads_deep", False)


def _mode(path: str | Path) -> str:
    """Pillow's mode of an image, nothing for a file that is none."""
    try:
        with Image.open(path) as image:
            return image.mode
    except OSError:
        return ""


def _what_is_wrong(path: str | Path) -> str:
    try:
        with Image.open(path) as image:
            image.load()
    except Image.UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # noqa: BLE001 - a damaged file makes Pillow raise nearly anything
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def _from_loading(exception: BaseException) -> bool:
    """Whether an error came out of a data loader."""
    frames = traceback.walk_tb(exception.__traceback__)
    return any(frame.f_globals.get("__name__", "").startswith("torch.utils.data") for frame, _ in frames)


def _paths(loader: Any) -> list[str]:  # noqa: ANN401
    """Images and masks that a data loader reads, those of anomalib's data sets and predictions."""
    dataset = getattr(loader, "dataset", None)
    while isinstance(dataset, Subset):
        # all of the data set: what is held out from a training is read too
        dataset = dataset.dataset
    if (samples := getattr(dataset, "samples", None)) is None:
        return [str(path) for path in getattr(dataset, "image_filenames", ())]
    return [
        str(path) for column in ("image_path", "mask_path") if column in samples for path in samples[column] if path
    ]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
