# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Training images that are no normals are named, and clean training sets are not troubled."""

import logging
import shutil

import numpy as np
import torch
from scipy.stats import gumbel_r

import tiny
from anomalib_vmpfd.engine.outliers import outliers, warn_of_outliers


def test_the_limit_is_the_quantile_of_the_gumbel_distribution_with_these_quartiles():
    scores = torch.from_numpy(gumbel_r.rvs(3, 2, size=200_000, random_state=0)).float()[:100_000]
    limit = gumbel_r.ppf(0.999, 3, 2)
    found = outliers(scores)
    assert abs(float(scores[found].min()) - limit) < 0.3
    assert (scores[found].diff() <= 0).all()


def test_clean_sets_are_seldom_troubled_and_a_tenth_of_defects_hides_nothing():
    generator = np.random.default_rng(0)
    clean = [torch.from_numpy(gumbel_r.rvs(size=200, random_state=generator)).float() for _ in range(100)]
    assert np.mean([len(outliers(scores)) for scores in clean]) < 1
    polluted = torch.cat([clean[0], torch.full((20,), 20.0)])
    assert set(range(200, 220)) <= set(outliers(polluted).tolist())


def test_scores_that_are_all_alike_have_no_outlier():
    assert len(outliers(torch.full((5,), 2.0))) == 0


def test_many_are_counted_and_ten_are_named(caplog):
    scores = torch.cat([torch.linspace(0, 1, 60), torch.linspace(50, 60, 12)])
    with caplog.at_level(logging.WARNING):
        warn_of_outliers(scores, [f"{index}.png" for index in range(72)])
    assert "12 of 72 training images" in caplog.text
    assert "71.png" in caplog.text
    assert "60.png" not in caplog.text
    assert "and 2 more" in caplog.text


def test_a_training_names_the_defect_among_its_normals(tmp_path, caplog):
    root = tiny.with_defects(tmp_path / "data")
    shutil.copy(root / "bad" / "001.png", root / "good" / "005b.png")
    data = tiny.data(root)
    with caplog.at_level(logging.WARNING):
        model = tiny.model(reconstruction="components", encoder_args=None)
        tiny.engine(tmp_path, max_epochs=1).fit(model, datamodule=data)
    (warning,) = [record.getMessage() for record in caplog.records if "score far above" in record.getMessage()]
    assert "1 of 13 training images" in warning
    assert "005b.png" in warning
