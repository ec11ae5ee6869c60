# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Thresholds from normals and a normalisation that keeps the ranking."""

import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from sklearn.metrics import roc_auc_score

from anomalib_vmpfd.engine.post_processor import RankPreservingPostProcessor

pytestmark = pytest.mark.numeric


def predictions(scores: torch.Tensor, maps: torch.Tensor) -> InferenceBatch:
    return InferenceBatch(pred_score=scores, anomaly_map=maps)


def test_ranking_survives_where_scores_lie_far_above_the_calibration():
    torch.manual_seed(0)
    post_processor = RankPreservingPostProcessor()
    post_processor.calibrate([predictions(torch.rand(50) * 0.1 + 0.5, torch.rand(50, 8, 8) * 0.1 + 0.4)])
    labels = torch.rand(200) > 0.5
    scores = torch.where(labels, torch.rand(200) * 0.1 + 0.85, torch.rand(200) * 0.3 + 0.6)
    maps = torch.rand(200, 8, 8)
    result = post_processor(InferenceBatch(pred_score=scores, anomaly_map=maps))
    assert roc_auc_score(labels, result.pred_score) == roc_auc_score(labels, scores)
    in_order = result.anomaly_map.flatten()[maps.flatten().argsort()]
    # neighbouring floats may change places by one rounding
    assert (in_order.diff() >= -torch.finfo(torch.float32).eps).all()
    # neighbouring floats may round to one value, a clamp would make thousands of ties
    assert len(in_order.unique()) > 0.999 * len(maps.unique())


def test_threshold_lies_at_one_half_and_counts_as_anomalous():
    post_processor = RankPreservingPostProcessor(image_fpr=0.5)
    normals = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    post_processor.calibrate([predictions(normals, normals.view(5, 1, 1))])
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
    post_processor = RankPreservingPostProcessor()
    scores = torch.linspace(0.1, 0.5, 40)
    post_processor.calibrate([
        predictions(scores[:30], scores[:30].view(30, 1, 1)),
        predictions(scores[30:], scores[30:].view(10, 1, 1)),
    ])
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
    [({"threshold": "max"}, "'normals' or 'f1'"), ({"image_fpr": 2.0}, "image_fpr.*between 0 and 1")],
)
def test_bad_arguments_name_the_cure(arguments, message):
    with pytest.raises(ValueError, match=message):
        RankPreservingPostProcessor(**arguments)
