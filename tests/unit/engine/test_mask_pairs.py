# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Masks by name, and what is said where anomalib would pair or refuse them by position."""

import random
from pathlib import Path

import numpy as np
import pytest

import tiny
from anomalib_vmpfd import FolderByName
from anomalib_vmpfd.engine.mask_pairs import MaskPairError, fits, pair_by_name


@pytest.mark.parametrize(
    ("image", "mask", "expected"),
    [
        ("000.png", "000.png", True),
        ("000.JPG", "000_mask.png", True),
        ("Part5.jpg", "Part5_label.bmp", True),
        ("5.jpg", "mask_5.bmp", True),
        ("1.png", "10_mask.png", False),
        ("1.png", "21.png", False),
        ("anomaly-1.png", "anomaly-10_mask.png", False),
        ("a+b.png", "a+b_mask.png", True),
        ("a.png", "b.png", False),
    ],
)
def test_a_mask_fits_an_image_of_its_name(image, mask, expected):
    assert fits(f"bad/{image}", f"mask/{mask}") is expected


def test_masks_are_found_in_any_order_and_folder():
    images = [f"test/{kind}/{number}.png" for kind in ("dent", "scratch") for number in range(1, 33)]
    masks = [f"truth/{kind}/{number}_mask.png" for kind in ("scratch", "dent") for number in range(32, 0, -1)]
    random.Random(0).shuffle(masks)
    expected = [Path(i.replace("test", "truth").replace(".png", "_mask.png")) for i in images]
    assert pair_by_name(images, masks) == expected


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (["bad/1.png", "bad/2.png"], ["mask/10.png", "mask/2.png"], r"1 of 2 .* no mask of their name: bad/1\.png"),
        (["bad/1.png", "bad/1.jpg"], ["mask/1.png"], r"mask/1\.png fits bad/1\.png and bad/1\.jpg"),
    ],
)
def test_what_cannot_be_paired_is_named(images, masks, message):
    with pytest.raises(MaskPairError, match=message):
        pair_by_name(images, masks)


def parts(root: Path, count: int, names: str, mask_names: str) -> Path:
    """Defects whose masks have as many pixels as their number."""
    tiny.normals(root)
    for number in range(1, count + 1):
        mask = np.zeros((64, 64), np.uint8)
        mask.flat[:number] = 255
        tiny.save(root / "bad" / names.format(number), tiny.texture(number))
        tiny.save(root / "mask" / mask_names.format(number), mask)
    return root


def refused(root: Path, tmp_path: Path) -> str:
    with pytest.raises(MaskPairError) as error:
        tiny.engine(tmp_path / "out").fit(tiny.model(), datamodule=tiny.data(root))
    assert not list(tmp_path.rglob("*.ckpt"))
    return str(error.value)


def test_pairs_that_anomalib_refuses_are_named(tmp_path):
    message = refused(parts(tmp_path / "data", 32, "anomaly-{}.png", "anomaly-{}_mask.png"), tmp_path)
    assert "of 32 images would get the mask of another one" in message
    assert "anomaly-1.png with " in message
    assert "--data FolderByName" in message


def test_a_wrong_pair_that_anomalib_does_not_notice_is_refused(tmp_path):
    root = parts(tmp_path / "data", 2, "{}.png", "{}_mask.png")
    (root / "mask" / "1_mask.png").rename(root / "mask" / "10_mask.png")
    assert "bad/1.png with " in refused(root, tmp_path)


def test_a_defect_without_a_mask_is_named(tmp_path):
    root = parts(tmp_path / "data", 4, "{}.png", "{}.png")
    (root / "mask" / "3.png").unlink()
    assert "1 of 4 images with a defect have no mask of their name" in refused(root, tmp_path)


def test_the_datamodule_reads_each_image_with_its_own_mask(tmp_path):
    root = parts(tmp_path, 12, "anomaly-{}.png", "anomaly-{}_mask.png")
    data = FolderByName("tiny", "good", root, abnormal_dir="bad", mask_dir="mask", val_split_mode="none", num_workers=0)
    data.setup("test")
    seen = {}
    for item in data.test_data:
        if item.gt_label:
            seen[Path(item.image_path).stem] = int(item.gt_mask.sum())
    assert seen == {f"anomaly-{number}": number for number in range(1, 13)}
    assert data.mask_dir == "mask"
