# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Fuzzes the loader of weights: any bytes end in tensors of the right shapes, or in a ``WeightsError``."""

import io
import os
import pickle
import tempfile
from pathlib import Path

import harness
import torch
from safetensors.torch import save
from torch import _weights_only_unpickler

from anomalib_vmpfd.weights import WeightsError, loading

COVERED = (loading.read_state_dict, loading._checked, _weights_only_unpickler.Unpickler.load)
SHAPES = {"conv.weight": torch.Size((2, 3)), "conv.bias": torch.Size((2,))}
FILES = {suffix: Path(tempfile.gettempdir()) / f"fuzz-{os.getpid()}{suffix}" for suffix in (".pth", ".safetensors")}


def target(data: bytes) -> None:
    """The first byte chooses the format, the others are the file."""
    path = FILES[".safetensors" if data[:1] == b"s" else ".pth"]
    path.write_bytes(data[1:])
    try:
        state = loading._checked(loading.read_state_dict(path), SHAPES, str(path), "a test network")
    except WeightsError as error:
        assert str(path) in str(error)  # noqa: PT017
        return
    finally:
        path.unlink()
    assert {name: value.shape for name, value in state.items()} == SHAPES
    assert all(value.isfinite().all() for value in state.values())


class Attack:
    """Runs a command where a pickle is trusted."""

    def __reduce__(self):
        return os.system, ("true",)


def seeds() -> list[bytes]:
    """Whole files of both formats, an older one of torch, and hostile ones."""
    state = {name: torch.arange(shape.numel(), dtype=torch.float32).view(shape) for name, shape in SHAPES.items()}
    found = [b"s" + save(state), b"s" + save({name: value.half() for name, value in state.items()})]
    for content in (state, state | {"conv.bias": Attack()}, {"state_dict": state}, [1, 2], state | {"conv.bias": "x"}):
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
            found.append(b"p" + buffer.getvalue())
        found.append(b"p" + pickle.dumps(content if content is not state else Attack()))
    return found


if __name__ == "__main__":
    harness.main("weights", target, seeds(), COVERED)
