# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Terms of the loss against independent implementations."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from anomalib_vmpfd.models.mmaerec.loss import reconstruction_terms


def test_terms_are_the_mean_squared_error_and_the_ssim_of_scikit_image():
    generator = np.random.default_rng(0)
    x = generator.random((2, 3, 48, 64)).astype(np.float32)
    x_hat = np.clip(x + 0.1 * generator.standard_normal(x.shape), 0, 1).astype(np.float32)
    terms = reconstruction_terms(torch.from_numpy(x), torch.from_numpy(x_hat))
    assert terms["l2"].item() == pytest.approx(np.square(x - x_hat).mean(), rel=1e-5)
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "win_size": 11}
    full = [
        structural_similarity(a, b, channel_axis=0, data_range=1.0, full=True, **gaussian)[1]
        for a, b in zip(x, x_hat, strict=True)
    ]
    # both filter past the border in their own way, so the maps agree where windows lie inside, and the means nearly
    assert terms["dssim"].item() == pytest.approx(1 - np.mean(full), abs=5e-3)
