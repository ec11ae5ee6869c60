# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Prn learns to find and to mark defects of the sample parts, ten of which it knows.

The training is a fraction of the default's, at a fraction of its size. What known defects add to simulated ones takes
more than that, and is a question to ``configs/benchmark/few_defects.yaml``.
"""

import pytest
from anomalib.metrics import AUROC, Evaluator, create_anomalib_metric
from torchmetrics.classification import BinaryAveragePrecision

import tiny
from anomalib_vmpfd import FewDefects, Prn

AveragePrecision = create_anomalib_metric(BinaryAveragePrecision)


@pytest.fixture(scope="module")
def metrics(sample_root, tmp_path_factory) -> dict[str, float]:
    data = FewDefects(
        name="washer",
        root=sample_root / "washer",
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir="test/*",
        mask_dir="ground_truth/*",
        known_defects=10,
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
    return runner.test(model, datamodule=data, verbose=False)[0]


def test_it_finds_defects_that_it_does_not_know(metrics):
    assert metrics["image_AUROC"] >= 0.8


def test_it_marks_defects_that_it_does_not_know(metrics):
    # of a map by chance it is the share of defective pixels, below 0.02
    assert metrics["pixel_BinaryAveragePrecision"] >= 0.15
