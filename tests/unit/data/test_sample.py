# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The generated sample parts."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_vmpfd.cli import main
from anomalib_vmpfd.data import sample
from anomalib_vmpfd.data.sample import COUNTS, make_sample, render

DEFECTS = ["scratch", "dent", "broken_edge"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only as many parts as it takes to see that the files are right."""
    monkeypatch.setattr(sample, "COUNTS", dict.fromkeys(COUNTS, 2))


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("seed", [1, (0, 3, 5)])
def test_masks_are_exact(defect: str, seed: int | tuple[int, ...]) -> None:
    """Outside of the mask nothing differs from the same part without the defect; inside, most pixels do visibly."""
    clean, empty = render(seed)
    broken, mask = render(seed, defect)
    change = np.abs(broken.astype(int) - clean).max(axis=-1)

    assert not empty.any()
    assert not change[mask == 0].any()
    assert set(np.unique(mask)) == {0, 255}
    assert np.median(change[mask == 255]) > 10
    assert 20 < (mask == 255).sum() < 0.03 * mask.size


def test_the_seed_decides() -> None:
    again, other = render((0, 1, 2)), render((0, 1, 3))
    assert np.array_equal(render((0, 1, 2))[0], again[0])
    assert not np.array_equal(again[0], other[0])


def test_brightness_alone_does_not_find_the_defects(sample_root: Path) -> None:
    """The sample parts would be no test of a model if the distance to the mean image told good from defective."""
    folder = sample_root / "washer"

    def read(*patterns: str) -> np.ndarray:
        return np.stack([np.asarray(Image.open(p), float) for pattern in patterns for p in folder.glob(pattern)])

    mean = read("train/good/*.png").mean(axis=0)
    good, bad = (
        np.abs(images - mean).max(axis=(1, 2, 3))
        for images in (read("test/good/*.png"), read(*(f"test/{kind}/*.png" for kind in DEFECTS)))
    )
    auroc = (bad[:, None] > good).mean()
    assert 0.2 < auroc < 0.8


def test_layout_is_that_of_mvtec_ad(sample_root: Path) -> None:
    """anomalib's own datamodule finds every image, and the mask that belongs to it."""
    from anomalib.data.datasets.image.mvtecad import make_mvtec_ad_dataset

    frame = make_mvtec_ad_dataset(sample_root / "washer")
    assert (frame["split"] == "train").sum() == 60
    assert frame[frame["split"] == "test"]["label"].value_counts().to_dict() == {"good": 12} | dict.fromkeys(DEFECTS, 8)
    for row in frame[frame["label_index"] == 1].itertuples():
        assert Path(row.mask_path).stem == f"{Path(row.image_path).stem}_mask"
        assert np.asarray(Image.open(row.mask_path)).max() == 255


@pytest.mark.usefixtures("few")
def test_a_complete_folder_is_left_alone_and_an_interrupted_one_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        msg = "No space left on device"
        raise OSError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(sample, "_write", full)
        with pytest.raises(OSError, match="No space"):
            make_sample(tmp_path)
    assert list(tmp_path.iterdir()) == []

    folder = make_sample(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert make_sample(tmp_path) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.usefixtures("few")
def test_same_seed_same_files(tmp_path: Path) -> None:
    """Also when two write to one place at the same time."""
    first = make_sample(tmp_path / "a")
    with ThreadPoolExecutor(2) as pool:
        second, third = pool.map(make_sample, [tmp_path / "b"] * 2)
    assert second == third
    names = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert len(names) == 2 * len(COUNTS) + 2 * len(DEFECTS) + 1
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


@pytest.mark.usefixtures("few")
def test_other_data_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "washer").mkdir()
    (tmp_path / "washer" / "mine.png").touch()
    with pytest.raises(FileExistsError, match="delete it or name another root"):
        make_sample(tmp_path)
    assert (tmp_path / "washer" / "mine.png").exists()

    shutil.rmtree(tmp_path / "washer")
    make_sample(tmp_path, seed=1)
    with pytest.raises(FileExistsError, match="seed 2"):
        make_sample(tmp_path, seed=2)


@pytest.mark.usefixtures("few")
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "--root", str(tmp_path), "--seed", "3"]) == 0
    assert str(tmp_path / "washer") in capsys.readouterr().out
    assert json.loads((tmp_path / "washer" / "sample.json").read_text())["seed"] == 3


@pytest.mark.usefixtures("few")
def test_datamodule_writes_what_is_missing(tmp_path: Path) -> None:
    from anomalib_vmpfd import SampleParts

    datamodule = SampleParts(root=tmp_path / "new", num_workers=0, val_split_mode="from_train", val_split_ratio=0.5)
    datamodule.prepare_data()
    datamodule.setup()
    batch = next(iter(datamodule.test_dataloader()))
    assert batch.gt_label.tolist() == [bool(mask.any()) for mask in batch.gt_mask]
    assert sorted(map(len, (datamodule.train_data, datamodule.val_data, datamodule.test_data))) == [1, 1, 8]
