# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The loss is equation 5 of the anomaly score map, with alpha 0.5 and gamma 4."""

import pytest
import torch

from anomalib_vmpfd.models.prn.loss import segmentation_terms

pytestmark = pytest.mark.numeric


def test_both_terms_by_hand():
    torch.manual_seed(0)
    logits, masks = 3 * torch.randn(2, 1, 5, 6), (torch.rand(2, 1, 5, 6) > 0.7).float()
    smooth, focal = [], []
    for p, m in zip(logits.double().sigmoid().flatten(), masks.flatten(), strict=True):
        difference = abs(p - m)
        smooth.append(0.5 * difference**2 if difference < 1 else difference - 0.5)
        right = p if m else 1 - p
        focal.append(-0.5 * (1 - right) ** 4 * right.log())
    terms = segmentation_terms(logits, masks, lambda_focal=5.0)
    assert terms["smooth_l1"].item() == pytest.approx(float(sum(smooth) / len(smooth)), rel=1e-5)
    assert terms["focal"].item() == pytest.approx(5 * float(sum(focal) / len(focal)), rel=1e-5)


def test_it_stays_finite_where_a_probability_is_zero():
    logits = torch.tensor([[[[200.0, -200.0]]]], requires_grad=True)
    loss = sum(segmentation_terms(logits, torch.tensor([[[[0.0, 1.0]]]]), 5.0).values())
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
