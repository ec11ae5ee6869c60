# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Maps of differences against scikit-image and transcriptions of their papers."""

import numpy as np
import torch
from scipy.ndimage import uniform_filter
from skimage.color import rgb2lab
from skimage.filters import prewitt_h, prewitt_v
from skimage.transform import resize

from anomalib_vmpfd.models.mmaerec.maps import colour_difference, gradient_magnitude, msgms, structure_difference

GREY = [0.299, 0.587, 0.114]


def pair(height: int = 48, width: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth images, and what is left of them after noise and a stain."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 6, 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    others = images + 0.02 * torch.randn(images.shape, generator=generator)
    others[:, 0, 10:20, 30:40] += 0.4
    return images, others.clamp(0, 1)


def magnitude(grey: np.ndarray) -> np.ndarray:
    return np.hypot(prewitt_h(grey), prewitt_v(grey))


def half(grey: np.ndarray) -> np.ndarray:
    return grey.reshape(grey.shape[0] // 2, 2, grey.shape[1] // 2, 2).mean((1, 3))


def transcribed_msgms(x: np.ndarray, x_hat: np.ndarray) -> np.ndarray:
    """Zavrtanik et al. 2021, section 3.2, on scikit-image's Prewitt operators, of grey images."""
    shape, maps = x.shape, []
    for scale in range(4):
        if scale:
            x, x_hat = half(x), half(x_hat)
        g, g_hat = magnitude(x), magnitude(x_hat)
        maps.append(resize((2 * g * g_hat + 0.0026) / (g**2 + g_hat**2 + 0.0026), shape, order=1, mode="edge"))
    return np.mean(maps, axis=0)


def grey(images: torch.Tensor) -> np.ndarray:
    return np.einsum("c,bchw->bhw", GREY, images.double().numpy())


def smoothed(values: np.ndarray, size: int) -> np.ndarray:
    # SciPy calls the reflection without the border pixel "mirror"
    return uniform_filter(values, size, mode="mirror")


def test_gradients_are_those_of_scikit_image():
    images, _ = pair()
    seen = gradient_magnitude(torch.from_numpy(grey(images))[:, None])
    for value, each in zip(seen[:, 0].numpy(), grey(images), strict=True):
        np.testing.assert_allclose(value, magnitude(each), atol=1e-5)


def test_msgms_is_that_of_its_paper():
    images, others = pair()
    seen = msgms(images, others)[:, 0].numpy()
    for value, x, x_hat in zip(seen, grey(images), grey(others), strict=True):
        np.testing.assert_allclose(value, transcribed_msgms(x, x_hat), atol=1e-4)
    np.testing.assert_allclose(msgms(images, images), 1, atol=1e-6)


def test_structure_is_equation_7():
    images, others = pair()
    seen = structure_difference(images, others)[:, 0].numpy()
    for value, similarity in zip(seen, msgms(images, others)[:, 0].double().numpy(), strict=True):
        np.testing.assert_allclose(value, 1 - smoothed(similarity, 21), atol=1e-5)


def test_colour_is_equation_13_in_the_lab_space_of_scikit_image():
    images, others = pair()
    seen = colour_difference(images, others)[:, 0].numpy()
    for value, x, x_hat in zip(seen, images.double().numpy(), others.double().numpy(), strict=True):
        squared = np.square(rgb2lab(x, channel_axis=0) - rgb2lab(x_hat, channel_axis=0)).sum(0)
        expected = smoothed(squared, 11)
        np.testing.assert_allclose(value, expected, rtol=1e-2, atol=5e-3 * expected.max())


def test_structure_is_blind_to_what_colour_sees():
    """Another hue of the same grey has the same gradients: why equation 14 adds both."""
    images = torch.full((1, 3, 48, 48), 0.5)
    others = images.clone()
    others[:, 0] += 0.2
    others[:, 2] -= 0.2 * GREY[0] / GREY[2] * 0.5
    others[:, 1] -= 0.2 * GREY[0] / GREY[1] * 0.5
    assert structure_difference(images, others).abs().max() < 1e-4
    assert colour_difference(images, others).min() > 100
