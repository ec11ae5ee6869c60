# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Mean structural similarity (SSIM) as a loss, its gradient computed in the same pass.

Paper: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004. The
values are those of ``kornia.metrics.ssim``. Through autograd that took half of a training step on a CPU, as it writes
and reads dozens of maps of the whole batch; here the maps of one image at a time stay in the processor's cache.
"""

from typing import Any

import torch
from kornia.filters import get_gaussian_kernel1d
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812

SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2
EPS = 1e-12  # as kornia


def mean_ssim(
    target: Tensor,
    image: Tensor,
    window_size: int = 11,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Mean SSIM over all images and channels and all places where the window lies inside the image.

    Args:
        target (Tensor): Images of shape ``(B, C, H, W)``; gets no gradient.
        image (Tensor): Images that are compared with them, of the same shape.
        window_size (int): Taps of the Gaussian window, whose standard deviation is 1.5.
        bounds (tuple[float, float]): What is black and what is white, 0 and 1 to the SSIM.

    Returns:
        Tensor: Scalar, in float32 or, if ``image`` is float64, in float64.

    Raises:
        ValueError: If the shapes differ or are smaller than the window.

    Example:
        >>> image = torch.rand(2, 3, 32, 32)
        >>> round(mean_ssim(image, image).item(), 4)
        1.0
    """
    if target.shape != image.shape or min(image.shape[-2:]) < window_size:
        msg = (
            f"SSIM compares images of equal shape with at least {window_size} x {window_size} pixels, got "
            f"{tuple(target.shape)} and {tuple(image.shape)}."
        )
        raise ValueError(msg)
    dtype = torch.promote_types(image.dtype, torch.float32)
    window = get_gaussian_kernel1d(window_size, SIGMA, dtype=torch.float64).flatten().tolist()
    with torch.autocast(image.device.type, enabled=False):
        return _MeanSsim.apply(target.detach().to(dtype), image.to(dtype), window, bounds)


class _MeanSsim(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        target: Tensor,
        image: Tensor,
        window: list[float],
        bounds: tuple[float, float],
    ) -> Tensor:
        grad = torch.empty_like(image) if ctx.needs_input_grad[1] else None
        at_once = 1 if image.device.type == "cpu" else len(image)
        means = []
        for start in range(0, len(image), at_once):
            part = slice(start, start + at_once)
            means.append(_ssim(target[part], image[part], window, bounds, None if grad is None else grad[part]))
        if grad is not None:
            ctx.save_for_backward(grad)
            ctx.parts = len(means)
        return torch.stack(means).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_mean: Tensor) -> tuple[None, Tensor, None, None]:  # noqa: ANN401
        (grad,) = ctx.saved_tensors
        return None, grad * (grad_mean / ctx.parts), None, None


def _ssim(x: Tensor, y: Tensor, window: list[float], bounds: tuple[float, float], y_grad: Tensor | None) -> Tensor:
    """Mean SSIM of ``x`` and ``y``; its gradient by ``y`` is written into ``y_grad``."""
    maps = x.new_empty(4, *x.shape)
    # variances and the covariance are differences of large numbers, less so around a brightness near that of the image
    level = x.mean(dim=(-2, -1), keepdim=True)
    x, y = torch.sub(x, level, out=maps[0]), torch.sub(y, level, out=maps[1])
    scale = 1 / (bounds[1] - bounds[0])
    maps[:2].mul_(scale)
    level = (level - bounds[0]) * scale
    torch.mul(x, y, out=maps[2])
    torch.mul(x, x, out=maps[3]).addcmul_(y, y)
    # the variances enter as their sum: four maps to blur instead of five
    offset_x, offset_y, covariance, variances = _correlate(_correlate(maps, window, -2), window, -1)
    covariance.addcmul_(offset_x, offset_y, value=-1)
    variances.addcmul_(offset_x, offset_x, value=-1).addcmul_(offset_y, offset_y, value=-1)
    mean_x, mean_y = offset_x + level, offset_y + level
    # SSIM = n1 n2 / (d1 d2)
    n1, n2 = (mean_x * mean_y).mul_(2).add_(C1), covariance.mul_(2).add_(C2)
    d1, d2 = (mean_x * mean_x).addcmul_(mean_y, mean_y).add_(C1), variances.add_(C2)
    inverse = (d1 * d2).add_(EPS).reciprocal_()
    similarity = (n1 * n2).mul_(inverse)
    if y_grad is not None:
        inverse.mul_(2 * scale / similarity.numel())
        grads = x.new_empty(3, *similarity.shape)
        by_mean, by_product, by_squares = grads
        torch.mul(n1, inverse, out=by_product)
        torch.mul(d1.mul_(similarity), inverse, out=by_squares).neg_()
        torch.mul(n2, mean_x, out=by_mean).addcmul_(d2.mul_(similarity), mean_y, value=-1).mul_(inverse)
        by_mean.addcmul_(by_product, offset_x, value=-1).addcmul_(by_squares, offset_y, value=-1)
        margin = len(window) - 1
        # the window is symmetric: the transposed correlation is a correlation with zeros around
        grads = F.pad(grads, (margin, margin, margin, margin))
        by_mean, by_product, by_squares = _correlate(_correlate(grads, window, -2), window, -1)
        torch.addcmul(by_mean.addcmul_(by_squares, y), by_product, x, out=y_grad)
    return similarity.mean()


def _correlate(maps: Tensor, window: list[float], dim: int) -> Tensor:
    """Correlate along one dimension where the window fits: sums of shifted maps need no layout of a convolution."""
    size = maps.shape[dim] - len(window) + 1
    total = maps.narrow(dim, 0, size) * window[0]
    for shift, weight in enumerate(window[1:], start=1):
        total.add_(maps.narrow(dim, shift, size), alpha=weight)
    return total
