# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints are atomic and checksummed; what is no checkpoint is named."""

import zipfile

import pytest
import torch

from anomalib_vmpfd.engine.checkpoint_io import CheckpointError, WholeCheckpointIO, read_whole

CHECKPOINT = {"state_dict": {"weight": torch.arange(1000.0)}, "epoch": 3}


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "model.ckpt"
    WholeCheckpointIO().save_checkpoint(CHECKPOINT, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.ckpt"]
    for read in (WholeCheckpointIO().load_checkpoint, read_whole):
        seen = read(path)
        torch.testing.assert_close(seen["state_dict"], CHECKPOINT["state_dict"])
        assert seen["epoch"] == 3


def test_a_checkpoint_of_a_gpu_is_read_where_there_is_none(tmp_path, monkeypatch):
    path = tmp_path / "model.ckpt"
    monkeypatch.setattr("torch.serialization.location_tag", lambda _storage: "cuda:0")
    WholeCheckpointIO().save_checkpoint(CHECKPOINT, path)
    for read in (WholeCheckpointIO().load_checkpoint, read_whole):
        torch.testing.assert_close(read(path)["state_dict"], CHECKPOINT["state_dict"])


def test_a_write_that_fails_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "model.ckpt"
    WholeCheckpointIO().save_checkpoint(CHECKPOINT, path)
    monkeypatch.setattr("os.fsync", lambda _file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        WholeCheckpointIO().save_checkpoint({**CHECKPOINT, "epoch": 4}, path)
    assert read_whole(path)["epoch"] == 3


@pytest.mark.parametrize("content", [[1, 2], {"model": 1}, b""], ids=str)
def test_what_is_no_checkpoint_is_named_with_the_cure(content, tmp_path):
    path = tmp_path / "other.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"other\.ckpt cannot be read as a checkpoint.*Give another"):
        read_whole(path)


def test_a_flipped_bit_does_not_become_a_weight(tmp_path):
    path = tmp_path / "model.ckpt"
    torch.save(CHECKPOINT, path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    content[largest.header_offset + largest.file_size // 2] ^= 1
    path.write_bytes(content)
    for read in (WholeCheckpointIO().load_checkpoint, read_whole):
        with pytest.raises(CheckpointError, match="wrong check sum"):
            read(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "nothing.ckpt")
