# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Metrics against scikit-learn and plain sweeps over thresholds, on the scores that trip torchmetrics."""

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from anomalib_vmpfd.benchmark.run.metrics import aupimo, evaluate, pro, rank
from anomalib_vmpfd.benchmark.run.predictions import Predictions


def scores_and_labels(scale: float, shift: float, digits: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(0)
    labels = generator.random(4000) < 0.05
    scores = (generator.normal(size=4000) + labels) * scale + shift
    scores = scores if digits is None else np.round(scores, digits)
    return torch.tensor(scores, dtype=torch.float32), torch.tensor(labels)


@pytest.mark.parametrize(
    ("scale", "shift", "digits"),
    [(1, 0, None), (1, 0, 1), (0.01, 0.5, None), (5, 45, None), (300, -900, None), (1e-6, 1, None)],
    ids=["plain", "ties", "in-unit-interval", "sigmoid-would-saturate", "negative", "barely-apart"],
)
def test_ranking_equals_scikit_learn(scale, shift, digits):
    scores, labels = scores_and_labels(scale, shift, digits)
    result = rank(scores, labels)
    precision, recall, _ = precision_recall_curve(labels, scores)
    assert result.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
    assert result.ap == pytest.approx(average_precision_score(labels, scores), abs=1e-5)
    assert result.f1_max == pytest.approx(np.max(2 * precision * recall / (precision + recall + 1e-12)), abs=1e-6)
    assert np.trapezoid(result.roc[1], result.roc[0]) == pytest.approx(result.auroc, abs=5e-3)


def test_constant_scores_are_chance():
    assert rank(torch.full((10,), 7.0), torch.arange(10) > 4).auroc == pytest.approx(0.5)


def test_one_class_has_no_ranking():
    assert rank(torch.rand(5), torch.zeros(5)) is None


def per_region_overlap(maps: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """Area under the overlap curve as the MVTec paper words it: thresholds, regions, false positive rate."""
    regions = []
    for index, mask in enumerate(masks):
        components, count = label(mask, structure=np.ones((3, 3)))
        regions += [(index, components == number) for number in range(1, count + 1)]
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        rates.append(found[~masks].mean())
        overlaps.append(np.mean([found[index][region].mean() for index, region in regions]))
    rates, overlaps = np.array(rates), np.array(overlaps)
    inside = rates <= limit
    x = np.append(rates[inside], limit)
    y = np.append(overlaps[inside], np.interp(limit, rates, overlaps))
    return np.trapezoid(y, x) / limit


def test_aupro_equals_a_plain_sweep_over_thresholds():
    generator = np.random.default_rng(1)
    masks = np.zeros((6, 24, 24), bool)
    masks[0, 2:6, 3:9] = masks[0, 15:18, 15:18] = masks[1, 10:20, 4:6] = masks[3, 0:2, 0:2] = True
    maps = np.round(generator.normal(size=masks.shape) + 1.5 * masks, 2) * 40
    area, (rates, overlaps) = pro(torch.tensor(maps), torch.tensor(masks))
    assert area == pytest.approx(per_region_overlap(maps, masks, 0.3), abs=1e-3)
    assert rates[-1] == pytest.approx(0.3)
    assert all(np.diff(overlaps) >= 0)


def per_image_overlap(maps: np.ndarray, masks: np.ndarray, low: float, high: float) -> float:
    """AUPIMO as its paper words it: overlap with each image's mask over the log of the normal images' mean rate."""
    normal, anomalous = maps[~masks.any(axis=(1, 2))], [pair for pair in zip(maps, masks, strict=True) if pair[1].any()]
    thresholds = np.unique(normal)[::-1]
    rates, overlaps = [], []
    for threshold in thresholds:
        rates.append(np.mean([(one >= threshold).mean() for one in normal]))
        overlaps.append([(one[mask] >= threshold).mean() for one, mask in anomalous])
        if rates[-1] > 2 * high:
            break
    log_rates = np.log(rates)
    x = np.unique(np.append(log_rates[(log_rates > np.log(low)) & (log_rates < np.log(high))], np.log([low, high])))
    areas = [np.trapezoid(np.interp(x, log_rates, overlap), x) for overlap in np.transpose(overlaps)]
    return np.mean(areas) / np.log(high / low)


def maps_and_masks() -> tuple[np.ndarray, np.ndarray]:
    """A million pixels of normal images of unlike noise, so that the bounds are 10 and 100 pixels, and four defects."""
    generator = np.random.default_rng(2)
    masks = np.zeros((104, 100, 100), bool)
    masks[:4, 20:40, 30:50] = True
    masks[1, 60:90, 5:8] = True
    noise = generator.normal(size=masks.shape) * generator.uniform(0.8, 1.2, (104, 1, 1))
    return noise + masks * generator.uniform(0, 7, masks.shape), masks


@pytest.mark.parametrize(("digits", "tolerance"), [(None, 1e-6), (2, 0.01)], ids=["plain", "ties"])
def test_aupimo_equals_a_plain_sweep_over_thresholds(digits, tolerance):
    maps, masks = maps_and_masks()
    maps = (maps if digits is None else np.round(maps, digits)).astype(np.float32)
    labels = torch.tensor(masks.any(axis=(1, 2)))
    expected = per_image_overlap(maps, masks, 1e-5, 1e-4)
    assert 0.1 < expected < 0.9
    area = aupimo(torch.tensor(maps), torch.tensor(masks), labels)
    assert area == pytest.approx(expected, abs=tolerance)
    assert aupimo(torch.tensor(-900 + 3 * maps), torch.tensor(masks), labels) == pytest.approx(area, abs=0.01)
    # an anomalous image whose mask has vanished is no normal image
    masks[4], maps[4] = True, 50
    missed, labels[4] = torch.tensor(masks), True
    missed[4] = False
    assert aupimo(torch.tensor(maps), missed, labels) == pytest.approx(area, abs=0.02)


def test_aupimo_is_missing_where_no_threshold_comes_near_its_bounds():
    maps, masks = (torch.tensor(values) for values in maps_and_masks())
    labels = masks.flatten(1).any(dim=1)
    area = aupimo(maps, masks, labels)
    whole = Predictions(maps.amax(dim=(1, 2)), labels, [], [], maps, masks, (100, 100))
    assert evaluate(whole)[0]["AUPIMO"] == area > 0
    assert aupimo(maps[:9], masks[:9], labels[:9]) is None, "50,000 pixels of normal images"
    assert aupimo(maps[:4], masks[:4], labels[:4]) is None, "no normal image"
    assert aupimo(maps.clamp(max=1), masks, labels) is None, "a tenth of all pixels shares the highest value"
    assert aupimo(torch.zeros_like(maps), masks, labels) is None


def predictions(maps: torch.Tensor | None, masks: torch.Tensor | None) -> Predictions:
    labels = torch.tensor([False, True, True, False])
    return Predictions(torch.tensor([0.1, 0.4, 0.2, 0.3]), labels, ["a"] * 4, [""] * 4, maps, masks, (8, 8))


def test_what_cannot_be_measured_is_missing_not_wrong():
    maps, masks = torch.rand(4, 8, 8), torch.zeros(4, 8, 8, dtype=torch.bool)
    without_masks, _ = evaluate(predictions(maps, None))
    without_maps, _ = evaluate(predictions(None, masks))
    empty_masks, _ = evaluate(predictions(maps, masks))
    assert set(without_masks) == set(without_maps) == set(empty_masks) == {"image_AUROC", "image_AP", "image_F1Max"}
    assert without_masks["image_AUROC"] == pytest.approx(0.75)
    masks[1, 2:4, 2:4] = True
    complete, curves = evaluate(predictions(maps, masks))
    assert {"pixel_AUROC", "pixel_AP", "pixel_F1Max", "AUPRO"} <= set(complete)
    assert set(curves) == {"image_roc", "pixel_roc", "pro"}
