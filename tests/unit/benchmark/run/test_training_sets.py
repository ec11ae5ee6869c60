# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Few and polluted training sets hold what was asked for, and never a test image."""

from itertools import pairwise
from pathlib import Path

import pytest

import tiny
from anomalib_vmpfd.benchmark.run.training_sets import ReducedFolder


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tiny.with_defects(tmp_path_factory.mktemp("reduced"), 4)


def split(root: Path, **arguments) -> tuple[set[str], set[str], set[str]]:
    """Normals that are learnt, defects that are learnt, and what is tested."""
    folders = {"normal_dir": "good", "normal_test_dir": "good_test", "abnormal_dir": "bad", "mask_dir": "mask"}
    data = ReducedFolder(**({"name": "reduced", "root": root, "num_workers": 0} | folders | arguments))
    data.setup()
    assert not data.train_data.samples.label_index.any()
    assert not any(bool(item.gt_label) for item in data.train_data)
    learnt, tested = (
        {"/".join(Path(p).parts[-2:]) for p in part.samples.image_path} for part in (data.train_data, data.test_data)
    )
    return ({p for p in learnt if p.startswith("good")}, {p for p in learnt if p.startswith("bad")}, tested)


def test_fewer_normals_are_part_of_more_and_another_seed_draws_others(root):
    draws = [split(root, normals=count)[0] for count in (1, 2, 4, 8)]
    assert [len(draw) for draw in draws] == [1, 2, 4, 8]
    assert all(few < more for few, more in pairwise(draws))
    assert split(root, normals=4, seed=1)[0] != draws[2]


def test_defects_that_are_learnt_are_not_tested_and_all_shares_are_tested_alike(root):
    shares = {share: split(root, pollution=share, removed_defects=3) for share in (0.0, 0.1, 0.2)}
    assert [len(defects) for _, defects, _ in shares.values()] == [0, 1, 3]
    assert all(not defects & tested for _, defects, tested in shares.values())
    assert len({frozenset(tested) for _, _, tested in shares.values()}) == 1
    assert shares[0.1][1] < shares[0.2][1]


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ({"normals": 13}, "has 12; give fewer"),
        ({"normals": 0}, "at least 1"),
        ({"pollution": 0.2}, "removed_defects=3"),
        ({"pollution": 0.2, "removed_defects": 4}, "none would remain"),
    ],
)
def test_more_than_the_folder_has_is_refused(root, arguments, cure):
    with pytest.raises(ValueError, match=cure):
        split(root, **arguments)
