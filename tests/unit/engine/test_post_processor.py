# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Thresholds from normals and a normalisation that keeps the ranking."""

import logging

import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from anomalib_vmpfd.anomaly.scale import bounded
from anomalib_vmpfd.engine.post_processor import RankPreservingPostProcessor

pytestmark = pytest.mark.numeric


def predictions(scores: Tensor, maps: Tensor, size: int = 7) -> list[InferenceBatch]:
    """Scores ``(N,)`` and maps ``(N, ...)`` of normal images in batches."""
    parts = zip(scores.split(size), maps.split(size), strict=True)
    return [InferenceBatch(pred_score=score, anomaly_map=each) for score, each in parts]


def test_ranking_survives_where_scores_lie_far_above_the_calibration():
    torch.manual_seed(0)
    post_processor = RankPreservingPostProcessor()
    post_processor.calibrate(predictions(torch.rand(50) * 0.1 + 0.5, torch.rand(50, 1, 8, 8) * 0.1 + 0.4))
    labels = torch.rand(200) > 0.5
    scores = torch.where(labels, torch.rand(200) * 0.1 + 0.85, torch.rand(200) * 0.3 + 0.6)
    maps = torch.rand(200, 8, 8)
    result = post_processor(InferenceBatch(pred_score=scores, anomaly_map=maps))
    assert roc_auc_score(labels, result.pred_score) == roc_auc_score(labels, scores)
    in_order = result.anomaly_map.flatten()[maps.flatten().argsort()]
    assert (in_order.diff() >= 0).all()
    # neighbouring floats may round to one value, a clamp would make thousands of ties
    assert len(in_order.unique()) > 0.999 * len(maps.unique())


def test_threshold_lies_at_one_half_and_counts_as_anomalous():
    post_processor = RankPreservingPostProcessor(image_fpr=0.5)
    normals = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    post_processor.calibrate(predictions(normals, normals[:, None, None]))
    threshold = post_processor.image_threshold
    scores = torch.stack([threshold, torch.nextafter(threshold, torch.tensor(0.0)), torch.tensor(0.9)])
    result = post_processor(InferenceBatch(pred_score=scores, anomaly_map=scores.view(3, 1, 1)))
    assert result.pred_score[0] == 0.5
    assert result.pred_label.tolist() == [True, False, True]


def test_f1_threshold_separates_what_can_be_separated():
    post_processor = RankPreservingPostProcessor(threshold="f1")
    batch = ImageBatch(
        image=torch.rand(4, 3, 4, 4),
        gt_label=torch.tensor([False, False, True, True]),
        gt_mask=torch.zeros(4, 4, 4, dtype=torch.bool),
        pred_score=torch.tensor([0.2, 0.3, 0.6, 0.7]),
        anomaly_map=torch.rand(4, 4, 4),
    )
    post_processor.on_validation_batch_end(None, None, batch)
    post_processor.on_validation_epoch_end(None, None)
    result = post_processor(InferenceBatch(pred_score=batch.pred_score, anomaly_map=batch.anomaly_map))
    assert result.pred_label.tolist() == [False, False, True, True]


def test_validation_images_do_not_move_the_threshold_from_normals():
    post_processor, normals = RankPreservingPostProcessor(), torch.linspace(0.1, 0.5, 40)
    post_processor.calibrate(predictions(normals, normals[:, None, None]))
    before = post_processor.image_threshold.clone()
    batch = ImageBatch(
        image=torch.rand(2, 3, 4, 4),
        gt_label=torch.tensor([False, True]),
        pred_score=torch.tensor([0.9, 0.95]),
        anomaly_map=torch.rand(2, 4, 4),
    )
    post_processor.on_validation_batch_end(None, None, batch)
    post_processor.on_validation_epoch_end(None, None)
    assert post_processor.image_threshold == before


def test_uncalibrated_scores_pass_unchanged():
    scores = torch.tensor([0.25, 0.75])
    result = RankPreservingPostProcessor()(InferenceBatch(pred_score=scores, anomaly_map=scores.view(2, 1, 1)))
    torch.testing.assert_close(result.pred_score, scores)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": "max"}, "'normals' or 'f1'"),
        ({"image_fpr": 2.0}, "image_fpr.*between 0 and 1"),
        ({"mask_fpr": 0.0}, "mask_fpr.*between 0 and 1"),
    ],
)
def test_bad_arguments_name_the_cure(arguments, message):
    with pytest.raises(ValueError, match=message):
        RankPreservingPostProcessor(**arguments)


@pytest.mark.parametrize(
    ("images", "mask_fpr", "band"), [(30, 0.1, (0.06, 0.14)), (300, 0.1, (0.08, 0.12)), (100, 0.3, (0.25, 0.35))]
)
def test_so_many_normal_images_have_any_pixel_in_their_mask(images, mask_fpr, band):
    """Whatever the number of pixels: a rate for pixels would mean another share of images for each size."""
    torch.manual_seed(0)
    shares = []
    for _ in range(40):
        post_processor = RankPreservingPostProcessor(mask_fpr=mask_fpr)
        normals, new = (bounded(torch.randn(count, 1, 16, 16) + torch.randn(count, 1, 1, 1)) for count in (images, 200))
        post_processor.calibrate(predictions(normals.amax((1, 2, 3)), normals))
        masks = post_processor(InferenceBatch(pred_score=new.amax((1, 2, 3)), anomaly_map=new)).pred_mask
        shares.append(masks.flatten(1).any(1).float().mean())
    assert band[0] < torch.stack(shares).mean() < band[1]


def test_both_rates_are_kept_apart():
    torch.manual_seed(0)
    scores, maps = bounded(torch.randn(2000)), bounded(torch.randn(2000, 1, 4, 4))
    post_processor = RankPreservingPostProcessor(image_fpr=0.02, mask_fpr=0.2)
    post_processor.calibrate(predictions(scores, maps, size=100))
    result = post_processor(InferenceBatch(pred_score=scores, anomaly_map=maps))
    assert result.pred_label.float().mean().item() == pytest.approx(0.02, abs=0.002)
    assert result.pred_mask.flatten(1).any(1).float().mean().item() == pytest.approx(0.2, abs=0.002)
    assert post_processor.pixel_min == maps.min()
    assert post_processor.pixel_max == maps.max()
    assert (post_processor.image_min, post_processor.image_max) == (scores.min(), scores.max())


def test_batches_of_any_size_give_the_same_thresholds():
    torch.manual_seed(0)
    scores, maps = torch.rand(23), torch.rand(23, 1, 4, 4)
    seen = []
    for size in (1, 7, 23):
        post_processor = RankPreservingPostProcessor()
        # an iterator, of which each batch is looked at once
        post_processor.calibrate(iter(predictions(scores, maps, size)))
        seen.append(post_processor.state_dict())
    for other in seen[1:]:
        torch.testing.assert_close(other, seen[0], rtol=0, atol=0, equal_nan=True)


def test_the_f1_threshold_is_not_moved_by_normals_though_they_are_looked_at():
    """Calibration of the model's maps is lazy: whoever takes no threshold has to ask for the predictions still."""
    asked = []
    post_processor = RankPreservingPostProcessor(threshold="f1")
    before = post_processor.image_threshold.clone()
    post_processor.calibrate(
        asked.append(True) or batch for batch in predictions(torch.rand(9), torch.rand(9, 1, 2, 2), 3)
    )
    assert len(asked) == 3
    torch.testing.assert_close(post_processor.image_threshold, before, equal_nan=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image_fpr": 0.02}, "image_fpr=0.02, the checkpoint's thresholds are for 0.05"),
        ({"mask_fpr": 0.3}, "mask_fpr=0.3, the checkpoint's thresholds are for 0.1"),
        ({"threshold": "f1"}, "threshold=f1, the checkpoint's thresholds are for normals"),
        ({"image_fpr": 0.02, "mask_fpr": 0.3}, "image_fpr=0.02.*; mask_fpr=0.3"),
    ],
    ids=str,
)
def test_a_rate_that_contradicts_the_thresholds_of_a_checkpoint_is_an_error(given, message):
    saved = RankPreservingPostProcessor().checkpoint_config()
    with pytest.raises(ValueError, match=f"{message}.*Leave it out, or train again"):
        RankPreservingPostProcessor(**given).load_checkpoint_config(saved)


def test_what_was_not_given_comes_from_the_checkpoint_without_a_word(caplog):
    saved = RankPreservingPostProcessor(image_fpr=0.02, mask_fpr=0.3, image_sensitivity=0.7).checkpoint_config()
    loaded = RankPreservingPostProcessor()
    with caplog.at_level(logging.INFO):
        loaded.load_checkpoint_config(saved)
    assert loaded.checkpoint_config() == saved
    assert not caplog.records
    # the same again is no contradiction
    RankPreservingPostProcessor(image_fpr=0.02).load_checkpoint_config(saved)


def test_a_sensitivity_of_the_users_wins_over_that_of_a_checkpoint_and_is_said(caplog):
    saved = RankPreservingPostProcessor(image_fpr=0.02, image_sensitivity=0.6).checkpoint_config()
    loaded = RankPreservingPostProcessor(image_sensitivity=0.8, enable_normalization=False)
    with caplog.at_level(logging.INFO):
        loaded.load_checkpoint_config(saved)
    assert (loaded.image_sensitivity, loaded.enable_normalization, loaded.image_fpr) == (0.8, False, 0.02)
    assert "keeps image_sensitivity=0.8; the checkpoint has 0.6" in caplog.text
    assert "keeps enable_normalization=False; the checkpoint has True" in caplog.text
