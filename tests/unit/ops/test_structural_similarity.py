# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""SSIM and its gradient against kornia's, which autograd differentiates."""

import pytest
import torch
from kornia.metrics import ssim

from anomalib_vmpfd.ops.structural_similarity import mean_ssim

pytestmark = pytest.mark.numeric


def images(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Three images, not square: noise, one with a flat half, where SSIM divides by its constants, and a black one."""
    torch.manual_seed(0)
    target = torch.rand(3, 2, 40, 29, dtype=torch.float64)
    target[1, :, :20], target[2] = 0.5, 0
    image = (target + 0.1 * torch.randn_like(target)).clamp(0, 1)
    return target.to(dtype), image.to(dtype).requires_grad_()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("window", [11, 7])
def test_value_and_gradient_are_kornias(dtype, tolerance, window):
    target, image = images(torch.float64)
    expected = ssim(target, image, window, padding="valid").mean()
    (expected_grad,) = torch.autograd.grad(3 * expected, image)
    target, image = images(dtype)
    similarity = mean_ssim(target, image, window)
    (grad,) = torch.autograd.grad(3 * similarity, image)
    assert similarity.dtype == grad.dtype == dtype
    assert similarity.item() == pytest.approx(expected.item(), rel=tolerance)
    # image by image, as one could hide the error of another
    difference, scale = (grad - expected_grad).flatten(1).norm(dim=1), expected_grad.flatten(1).norm(dim=1)
    assert (difference / scale).max() < tolerance


def test_any_memory_layout_and_half_precision_give_the_same():
    target, image = images(torch.float32)
    (expected,) = torch.autograd.grad(mean_ssim(target, image), image)
    channels_last = (x.detach().contiguous(memory_format=torch.channels_last) for x in (target, image))
    target_cl, image_cl = next(channels_last), next(channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        (grad,) = torch.autograd.grad(mean_ssim(target_cl, image_cl), image_cl)
    torch.testing.assert_close(grad, expected)
    half = mean_ssim(target.bfloat16(), image.bfloat16())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(mean_ssim(target, image).item(), abs=0.02)


def test_bounds_are_black_and_white():
    target, image = images(torch.float64)
    (expected,) = torch.autograd.grad(mean_ssim(target, image), image)
    wide = (2 * image.detach() - 1).requires_grad_()
    similarity = mean_ssim(2 * target - 1, wide, bounds=(-1.0, 1.0))
    assert similarity.item() == pytest.approx(mean_ssim(target, image).item())
    torch.testing.assert_close(torch.autograd.grad(similarity, wide)[0], expected / 2)


def test_images_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="11 x 11 pixels"):
        mean_ssim(torch.rand(1, 3, 10, 32), torch.rand(1, 3, 10, 32))
    with pytest.raises(ValueError, match="equal shape"):
        mean_ssim(torch.rand(1, 3, 32, 32), torch.rand(2, 3, 32, 32))
