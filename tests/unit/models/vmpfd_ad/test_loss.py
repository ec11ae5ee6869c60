# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Terms of the reconstruction against independent implementations."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from anomalib_vmpfd.models.vmpfd_ad.loss import reconstruction_terms


def test_reconstruction_terms_are_equation_4_and_the_ssim_of_scikit_image():
    generator = np.random.default_rng(0)
    x = generator.random((2, 3, 64, 48)).astype(np.float32)
    x_hat = np.clip(x + 0.1 * generator.standard_normal(x.shape), 0, 1).astype(np.float32)
    terms = reconstruction_terms(torch.from_numpy(2 * x - 1), torch.from_numpy(2 * x_hat - 1))

    frobenius = [np.linalg.norm((2 * a - 2 * b).ravel()) ** 2 / (64 * 48) for a, b in zip(x, x_hat, strict=True)]
    assert terms["mse"].item() == pytest.approx(np.mean(frobenius), rel=1e-5)
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "win_size": 11}
    similarities = [
        structural_similarity(a, b, channel_axis=0, data_range=1.0, **gaussian) for a, b in zip(x, x_hat, strict=True)
    ]
    assert terms["ssim"].item() == pytest.approx(np.mean(similarities), abs=2e-4)
