# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""How many normal images a threshold needs."""

import pytest
import torch

from anomalib_vmpfd.decide.recalibration import normals_needed
from anomalib_vmpfd.engine.calibration import threshold_at_fpr


@pytest.mark.parametrize("rate", [0.1, 0.02, 0.01, 0.001])
def test_with_the_fewest_images_that_are_taken_alarms_are_less_than_twice_as_many(rate):
    """Of scores that are maxima, whose distribution is known: the share above t is 1 - exp(-exp(-t))."""
    torch.manual_seed(0)
    samples = -(-torch.rand(400, normals_needed(rate)).log()).log()
    thresholds = torch.stack([threshold_at_fpr(sample, rate) for sample in samples]).double()
    alarms = -torch.expm1(-torch.exp(-thresholds))
    assert alarms.mean() < 2 * rate
