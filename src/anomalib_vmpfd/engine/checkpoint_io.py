# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Atomic, checksummed checkpoints."""

import io
import pickle  # noqa: S403, only for the name of its error
import zipfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from anomalib.engine.plugins.checkpoint_io import AnomalibCheckpointIO
from lightning import Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from anomalib_vmpfd.files import write_atomically


class CheckpointError(ValueError):
    """A checkpoint that is damaged or holds code; the message names the file and the cure."""


class WholeCheckpointIO(AnomalibCheckpointIO):
    """anomalib's reading and writing of checkpoints, safe for a kill and a full disk at any moment.

    Lightning writes to the system's temporary folder and moves the file from there. Where that folder is another file
    system, as a tmpfs often is, the move is a copy over the last checkpoint: a kill or a full disk in its middle leaves
    half a file and no other.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ANN401
        """Write a checkpoint beside its place and put it there when it is complete.

        Args:
            checkpoint (dict[str, Any]): The checkpoint.
            path (str | Path): The file; an address with a protocol is left to Lightning.
            storage_options (Any): Not supported, as in Lightning.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
        else:
            buffer = io.BytesIO()
            torch.save(checkpoint, buffer)
            write_atomically(Path(path), buffer.getbuffer())

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = "cpu",  # noqa: ANN401
        weights_only: bool = True,
    ) -> dict[str, Any]:
        """Read a checkpoint of any device without running code from it, unless ``weights_only`` is switched off."""
        with readable(path):
            return super().load_checkpoint(path, map_location=map_location, weights_only=weights_only)


@contextmanager
def readable(path: str | Path) -> Generator[None, None, None]:
    """Turn the errors of reading a checkpoint into one that names the file and the cure.

    Args:
        path (str | Path): The file that is being read.

    Raises:
        CheckpointError: If the file is damaged, is no checkpoint or holds more than data.
    """
    try:
        _check_sums(path)
        yield
    except FileNotFoundError:
        raise
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        KeyError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        if isinstance(error, RuntimeError) and "state_dict" in str(error):
            raise  # whole, but of another model: Lightning's error says in what it differs
        reason = " ".join(str(error).split())[:200]
        msg = (
            f"{path} cannot be read as a checkpoint: it is truncated, damaged, or holds more than tensors and plain "
            f"data, and nothing was run from it ({type(error).__name__}: {reason}). Give another checkpoint, or train "
            "again; a run keeps its own in weights/lightning/model.ckpt."
        )
        raise CheckpointError(msg) from error


def read_whole(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without running code from it.

    Args:
        path (str | Path): The file.

    Returns:
        dict[str, Any]: The checkpoint; its tensors stay in the file until they are needed.

    Raises:
        CheckpointError: If the file is damaged, is no checkpoint or holds more than data.
    """
    with readable(path):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
            msg = "no state_dict in it"
            raise ValueError(msg)
    return checkpoint


def _check_sums(path: str | Path) -> None:
    """Compare the check sums that torch writes but does not read, so that no flipped bit becomes a weight."""
    if "://" not in str(path) and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if (name := archive.testzip()) is not None:
                msg = f"wrong check sum of {name}"
                raise ValueError(msg)


def keep_checkpoints_whole(trainer: Trainer) -> None:
    """Let a trainer write its checkpoints through :class:`WholeCheckpointIO`; a user's own plugin is left alone.

    Args:
        trainer (Trainer): The trainer, before it reads or writes a checkpoint.
    """
    given = trainer.strategy.checkpoint_io
    if type(given) in {TorchCheckpointIO, AnomalibCheckpointIO}:
        extras = getattr(given, "extra_safe_globals", None)
        trainer.strategy.checkpoint_io = WholeCheckpointIO(extra_safe_globals=extras)
