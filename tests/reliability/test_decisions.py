# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Bad input to the commands that are used at the line: one error names it and the cure, and nothing is written."""

import re
import shutil

import numpy as np
import pytest
import torch

import tiny
from anomalib_vmpfd.cli import main
from anomalib_vmpfd.engine.deep_images import parse_window, read_deep
from anomalib_vmpfd.engine.image_errors import ImageError
from anomalib_vmpfd.engine.region_of_interest import RegionError, read_region


@pytest.fixture
def normals(tmp_path):
    return tiny.normals(tmp_path / "normals", 24) / "good"


def few(normals, checkpoint) -> list[str]:
    for path in sorted(normals.iterdir())[12:]:
        path.unlink()
    return ["--ckpt_path", checkpoint, "--normals", normals, "--image_fpr", "0.001"]


def damaged(normals, checkpoint) -> list[str]:
    (normals / "003.png").write_bytes(b"not an image")
    return ["--ckpt_path", checkpoint, "--normals", normals]


def deep(normals, checkpoint) -> list[str]:
    tiny.save(normals / "deep.png", DEEP)
    return ["--ckpt_path", checkpoint, "--normals", normals]


def foreign(normals, _checkpoint) -> list[str]:
    torch.save({"state_dict": {}}, normals.parent / "other.ckpt")
    return ["--ckpt_path", normals.parent / "other.ckpt", "--normals", normals]


def present(normals, checkpoint) -> list[str]:
    other = shutil.copy(checkpoint, normals.parent / "model.ckpt")
    return ["--ckpt_path", checkpoint, "--normals", normals, "--output", other]


DEEP = torch.full((64, 64), 4000).short().numpy().astype("uint16")
WRONG = {
    "too few normals to calibrate on": (few, r"holds 12 images; image_fpr=0.001 needs at least 100 normal ones"),
    "damaged normal to calibrate on": (damaged, r"003\.png \(not an image\).*Replace or remove"),
    "16-bit normal to calibrate on": (deep, r"deep\.png: more than 8 bits"),
    "checkpoint of another package to calibrate": (foreign, "not saved by a model of this package"),
    "file that is there as the output of a calibration": (present, "is there already and is left alone"),
    "rate of 2 to calibrate at": (
        lambda normals, checkpoint: ["--ckpt_path", checkpoint, "--normals", normals, "--mask_fpr", "2"],
        "mask_fpr is a false-positive rate between 0 and 1, got 2",
    ),
    "folder to calibrate on that is not there": (
        lambda normals, checkpoint: ["--ckpt_path", checkpoint, "--normals", normals / "gone"],
        "gone",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_calibration_that_cannot_be_made_says_why(kind, normals, trained, tmp_path, capsys, case):
    prepare, message = WRONG[kind]
    checkpoint = shutil.copy(trained[1], tmp_path / "trained.ckpt")
    words = prepare(normals, checkpoint)
    before = set(tmp_path.rglob("*.ckpt")), checkpoint.read_bytes()
    assert main(["calibrate", *map(str, words)]) == 2
    said = "".join(capsys.readouterr().err.partition("anomalib-vmpfd calibrate: ")[1:])  # after its progress
    assert re.search(message, said)
    assert (set(tmp_path.rglob("*.ckpt")), checkpoint.read_bytes()) == before
    case(kind, "one error names it and the cure; no checkpoint is written", said.replace(str(tmp_path), ""), "yes")


def cut_short(normals) -> None:
    path = normals / "003.png"
    path.write_bytes(path.read_bytes()[:-200])


COMMANDS = {
    "export to check that is not there": (
        ["check-export", "--ckpt_path", "CHECKPOINT", "--export", "gone.onnx", "--data", "NORMALS"],
        None,
        r"no export gone\.onnx; write one",
    ),
    "checkpoint as the export to check": (
        ["check-export", "--ckpt_path", "CHECKPOINT", "--export", "CHECKPOINT", "--data", "NORMALS"],
        None,
        r"neither the \.onnx file nor the \.xml file",
    ),
    "overlap of a whole tile": (
        ["predict-tiles", "--model", "CHECKPOINT", "--data", "NORMALS", "--output", "OUT", "--overlap", "64"],
        None,
        "overlap=64 must be from 0 to less than the 64 pixels of a tile",
    ),
    "16-bit image in tiles": (
        ["predict-tiles", "--model", "CHECKPOINT", "--data", "NORMALS", "--output", "OUT"],
        lambda normals: tiny.save(normals / "deep.png", DEEP),
        r"deep\.png: more than 8 bits .*window",
    ),
    "truncated image in tiles": (
        ["predict-tiles", "--model", "CHECKPOINT", "--data", "NORMALS", "--output", "OUT"],
        cut_short,
        r"003\.png cannot be read \(.*\)\. Replace or remove it",
    ),
    "truncated image to cut into tiles": (
        ["tile", "--data", "NORMALS", "--output", "OUT", "--size", "[64,64]"],
        cut_short,
        r"003\.png cannot be read \(.*\)\. Replace or remove it",
    ),
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_command_that_cannot_go_on_says_why_in_one_line(kind, normals, trained, tmp_path, capsys, case):
    words, spoil, message = COMMANDS[kind]
    if spoil:
        spoil(normals)
    places = {"CHECKPOINT": trained[1], "NORMALS": normals, "OUT": tmp_path / "out"}
    assert main([str(places.get(word, word)) for word in words]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said)
    assert said.count("\n") == 1
    case(
        kind, "one error names it and the cure", said.replace(str(tmp_path), "").replace(str(trained[1]), "model.ckpt")
    )


REGIONS = {
    "region of interest that is not there": (lambda _path: None, "cannot be read as a picture"),
    "region of interest that is no picture": (lambda path: path.write_bytes(b"x"), "cannot be read as a picture"),
    "folder as region of interest": (lambda path: path.mkdir(), "one picture for all images, not a folder"),
    "region of interest that is all black": (
        lambda path: tiny.save(path, np.zeros((64, 64), np.uint8)),
        "is empty at 64 x 64 pixels",
    ),
}


@pytest.mark.parametrize("kind", REGIONS)
def test_a_region_of_interest_that_cannot_be_used_is_named(kind, tmp_path, case):
    make, message = REGIONS[kind]
    make(tmp_path / "roi.png")
    with pytest.raises(RegionError, match=rf"roi\.png.*{message}") as error:
        read_region(tmp_path / "roi.png", (64, 64))
    case(kind, "one error names file and cure", str(error.value).replace(str(tmp_path), ""))


def test_a_window_that_is_none_is_refused(case):
    with pytest.raises(ValueError, match=r"window='9000,100' must be two grey values from 0 to 65535") as error:
        parse_window("9000,100")
    case("window whose ends are exchanged", "one error names it and the cure", str(error.value))


def test_an_8_bit_image_for_a_model_of_16_bits_is_named(tmp_path, case):
    path = tiny.save(tmp_path / "8.png", tiny.texture(0))
    with pytest.raises(ImageError, match=r"8\.png: 8 bits a channel") as error:
        read_deep(path)
    case("8-bit image for a model with a window", "one error names it", str(error.value).replace(str(tmp_path), ""))
