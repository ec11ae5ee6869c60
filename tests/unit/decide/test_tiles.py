# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Large images in tiles: nothing left out, no seam, one score."""

import importlib
import json
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from anomalib_vmpfd.cli import main
from anomalib_vmpfd.decide import tiles_command
from anomalib_vmpfd.decide.runtimes import Answer
from anomalib_vmpfd.decide.tiles import cut, predict_in_tiles, starts

TILE = (64, 96)


def brightness(tile: np.ndarray) -> Answer:
    """A model that sees every pixel by itself: its map of an image does not depend on the tiles."""
    anomaly_map = tile.mean(0)
    return Answer(float(anomaly_map.max()), bool(anomaly_map.max() >= 0.5), anomaly_map)


@pytest.mark.parametrize("overlap", [0, 1, 17, 63])
@pytest.mark.parametrize("length", [64, 65, 100, 128, 1000])
def test_tiles_cover_an_axis_overlap_and_end_flush(length, overlap):
    firsts = starts(length, 64, overlap)
    assert firsts[0] == 0
    assert firsts[-1] == length - 64
    assert all(following - first <= 64 - overlap for first, following in pairwise(firsts))
    assert len(set(firsts)) == len(firsts)


@pytest.mark.parametrize("overlap", [-1, 64])
def test_an_overlap_that_is_none_is_refused(overlap):
    with pytest.raises(ValueError, match="overlap="):
        starts(100, 64, overlap)


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (250, 333), (40, 50), (40, 333)])
@pytest.mark.parametrize("overlap", [0, 16])
def test_a_map_is_put_together_as_it_was(size, overlap):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    seen = predict_in_tiles(brightness, image, TILE, overlap)
    np.testing.assert_allclose(seen.anomaly_map, image.mean(2) / 255, atol=1e-5)
    assert seen.score == pytest.approx(image.mean(2).max() / 255, abs=1e-6)


def test_tiles_that_disagree_leave_no_seam():
    """Each tile adds a level of its own, as a model that sees only part of the image does."""
    levels = iter(np.random.default_rng(0).uniform(0, 1, 1000))
    seen = predict_in_tiles(
        lambda tile: Answer(0.0, label=False, anomaly_map=np.full(tile.shape[1:], next(levels), np.float32)),
        np.zeros((500, 700, 3), np.uint8),
        TILE,
        overlap=32,
    ).anomaly_map
    # a step of up to one becomes a ramp over the overlap
    steps = max(np.abs(np.diff(seen, axis=axis)).max() for axis in (0, 1))
    assert steps < 2 / 32


def test_one_bad_tile_makes_an_image_bad():
    image = np.full((200, 300, 3), 20, np.uint8)
    image[-6:, -6:] = 250  # in the last tile
    seen = predict_in_tiles(brightness, image, TILE, 16)
    assert seen.label
    assert np.unravel_index(seen.anomaly_map.argmax(), seen.anomaly_map.shape) >= (194, 294)


def test_a_score_that_is_no_number_is_not_passed_over():
    answers = iter([0.1, np.nan, 0.2, 0.3, 0.1, 0.1])
    seen = predict_in_tiles(
        lambda tile: Answer(next(answers), label=False, anomaly_map=np.zeros(tile.shape[1:], np.float32)),
        np.zeros((64, 300, 3), np.uint8),
        TILE,
        0,
    )
    assert np.isnan(seen.score)


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match="64 x 96 pixels, their map 32 x 48"):
        predict_in_tiles(
            lambda _: Answer(0.0, label=False, anomaly_map=np.zeros((32, 48))),
            np.zeros((100, 100, 3), np.uint8),
            TILE,
            16,
        )


def test_a_small_image_is_mirrored_and_not_padded_with_black():
    image = np.full((30, 40, 3), 200, np.uint8)
    ((_, tile),) = cut(image, TILE, 16)
    assert tile.shape == (*TILE, 3)
    assert (tile == 200).all()


def test_images_are_cut_to_files_that_show_where_they_were(tmp_path, capsys):
    image = np.random.default_rng(0).integers(0, 255, (100, 150, 3), np.uint8)
    (tmp_path / "large" / "a").mkdir(parents=True)
    Image.fromarray(image).save(tmp_path / "large" / "a" / "1.png")
    command = ["--data", str(tmp_path / "large"), "--output", str(tmp_path / "tiles"), "--size", "[64,96]"]
    assert main(["tile", *command]) == 0
    assert "6 tiles of 1 images" in capsys.readouterr().out
    last = np.asarray(Image.open(tmp_path / "tiles" / "a_1_00036_00054.png"))
    assert (last == image[36:, 54:]).all()


@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "colour"])
def test_tiles_of_images_of_16_bits_keep_them(channels, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 60000, (100, 96, *channels)).astype(np.uint16)
    (tmp_path / "large").mkdir()
    assert cv2.imwrite(str(tmp_path / "large" / "1.png"), pixels)
    command = ["--data", str(tmp_path / "large"), "--output", str(tmp_path / "tiles"), "--size", "[64,96]"]
    assert main(["tile", *command]) == 0
    last = cv2.imread(str(tmp_path / "tiles" / "1_00036_00000.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(last, pixels[36:])


def test_rows_and_maps_of_large_images(tmp_path, monkeypatch):
    class Bright:
        image_size = TILE
        reads_deep = False

        def __init__(self, path: Path) -> None:
            assert path == tmp_path / "model.ckpt"

        __call__ = staticmethod(brightness)

    monkeypatch.setattr(tiles_command, "Checkpoint", Bright)
    Image.fromarray(np.full((100, 150, 3), 51, np.uint8)).save(tmp_path / "1.png")
    command = ["--model", str(tmp_path / "model.ckpt"), "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main(["predict-tiles", *command]) == 0
    row = json.loads((tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8"))
    assert (row["path"], row["label"]) == (str(tmp_path / "1.png"), False)
    assert np.load(row["anomaly_map"]).shape == (100, 150)


@pytest.mark.parametrize("command", ["tile", "predict-tiles"])
def test_what_is_not_there_is_one_line(command, tmp_path, capsys):
    model = ["--model", str(tmp_path / "no.onnx")] if command == "predict-tiles" else []
    assert main([command, *model, "--data", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"anomalib-vmpfd {command}: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["tiles_command", "export_check"])
def test_commands_need_no_onnx_until_an_onnx_file_is_rounded(monkeypatch, command):
    """A plain installation has neither onnx nor onnxruntime."""
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("low_precision", "runtimes", command):
        monkeypatch.delitem(sys.modules, f"anomalib_vmpfd.decide.{name}", raising=False)
    importlib.import_module(f"anomalib_vmpfd.decide.{command}")
