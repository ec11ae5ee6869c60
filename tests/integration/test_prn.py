# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Ten known defects of the sample parts teach Prn to mark the others better than simulated ones alone do.

The training is a fraction of the default's, at a fraction of its size: what it shows is the direction.
"""

import pytest
from anomalib.metrics import AUROC, Evaluator, create_anomalib_metric
from torchmetrics.classification import BinaryAveragePrecision

import tiny
from anomalib_vmpfd import FewDefects, Prn

AveragePrecision = create_anomalib_metric(BinaryAveragePrecision)


@pytest.fixture(scope="module")
def metrics(sample_root, tmp_path_factory) -> dict[int, dict[str, float]]:
    """Test metrics by number of known defects, on the same test images."""
    found = {}
    for known in (0, 10):
        data = FewDefects(
            name="washer",
            root=sample_root / "washer",
            normal_dir="train/good",
            normal_test_dir="test/good",
            abnormal_dir="test/*",
            mask_dir="ground_truth/*",
            known_defects=known,
            removed_defects=10,
            val_split_mode="none",
            train_batch_size=8,
            eval_batch_size=16,
            num_workers=0,
        )
        evaluator = Evaluator(
            test_metrics=[
                AUROC(fields=["pred_score", "gt_label"], prefix="image_"),
                AveragePrecision(fields=["anomaly_map", "gt_mask"], prefix="pixel_"),
            ]
        )
        model = Prn(image_size=(96, 96), channels=(8, 16, 32), lr=5e-3, epochs=8, evaluator=evaluator, visualizer=False)
        runner = tiny.engine(tmp_path_factory.mktemp("prn"))
        runner.fit(model, datamodule=data)
        found[known] = runner.test(model, datamodule=data, verbose=False)[0]
    return found


def test_known_defects_find_the_others(metrics):
    assert metrics[10]["image_AUROC"] >= 0.8
    assert metrics[10]["pixel_BinaryAveragePrecision"] >= 0.2


def test_known_defects_mark_the_others_better_than_simulated_ones_alone(metrics):
    average_precision = {known: each["pixel_BinaryAveragePrecision"] for known, each in metrics.items()}
    assert average_precision[10] > average_precision[0] + 0.08
