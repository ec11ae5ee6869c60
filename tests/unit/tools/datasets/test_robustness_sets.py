# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Robustness sets hold what their names say, and leave the data they are made from alone."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[4] / "tools" / "datasets" / "robustness_sets.py"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*")}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    source, natural, out = (tmp_path_factory.mktemp(name) for name in ("source", "natural", "out"))
    rng = np.random.default_rng(0)
    for folder, count in (("train/good", 90), ("test/good", 6), ("test/dent", 12), ("test/hole", 12)):
        for index in range(count):
            image = Image.fromarray(rng.integers(0, 120, (32, 32, 3), np.uint8))
            for path in (source / folder, source / "ground_truth" / Path(folder).name):
                path.mkdir(parents=True, exist_ok=True)
            image.save(source / folder / f"{index:03}.png")
            if "good" not in folder:
                image.save(source / "ground_truth" / Path(folder).name / f"{index:03}_mask.png")
    (natural / "photographs").mkdir()
    image.save(natural / "photographs" / "beach.png")
    before = {path: path.read_bytes() for path in source.rglob("*.png")}
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["--data", str(source), "--natural", str(natural), "--out", str(out)]
        patch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert {path: path.read_bytes() for path in source.rglob("*.png")} == before
    return source, out


def test_few_normals_are_part_of_more(sets):
    _, out = sets
    few = [names(out / f"normals-{count}" / "train" / "good") for count in (4, 16, 64)]
    assert [len(chosen) for chosen in few] == [4, 16, 64]
    assert few[0] < few[1] < few[2]


@pytest.mark.parametrize(("percent", "moved"), [(5, 5), (10, 10)])
def test_a_defect_that_is_learnt_is_not_tested(sets, percent, moved):
    source, out = sets
    folder = out / f"polluted-{percent}"
    learnt = names(folder / "train" / "good") - names(source / "train" / "good")
    assert len(learnt) == moved
    assert moved / len(names(folder / "train" / "good")) == pytest.approx(percent / 100, abs=0.01)
    for name in learnt:
        kind, image = name.split("_")
        assert not (folder / "test" / kind / image).exists()
    for kind in ("dent", "hole"):
        masks = {name.replace("_mask", "") for name in names(folder / "ground_truth" / kind)}
        assert masks == names(folder / "test" / kind)


def test_only_the_test_images_shift(sets):
    source, out = sets
    original = np.asarray(Image.open(source / "test" / "dent" / "003.png"), float)
    for kind, factor in (("dark", 0.7), ("dimmer", 0.9), ("brighter", 1.1), ("bright", 1.3)):
        changed = np.asarray(Image.open(out / kind / "test" / "dent" / "003.png"), float)
        np.testing.assert_allclose(changed, original * factor, atol=0.6)
    blurred = np.asarray(Image.open(out / "blurred" / "test" / "dent" / "003.png"), float)
    assert blurred.shape == original.shape
    for kind in ("dark", "bright", "blurred"):
        for part in ("train/good/000.png", "ground_truth/dent/003_mask.png"):
            assert (out / kind / part).read_bytes() == (source / part).read_bytes()


def test_photographs_lie_where_the_suite_looks_for_them(sets):
    _, out = sets
    assert names(out / "natural" / "photographs") == {"beach.png"}
