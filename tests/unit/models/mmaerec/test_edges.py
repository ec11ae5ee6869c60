# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Edge maps against SciPy's grey morphology; the scales of the encoder."""

import numpy as np
import torch
from scipy.ndimage import grey_dilation, grey_erosion

from anomalib_vmpfd.models.mmaerec.edges import EdgeEncoder, edge_map


def test_edges_are_dilation_less_erosion_of_the_grey_image():
    images = torch.rand(2, 3, 20, 31, generator=torch.Generator().manual_seed(0))
    seen = edge_map(images)
    assert seen.shape == (2, 1, 20, 31)
    for image, edges in zip(images.numpy(), seen.numpy(), strict=True):
        grey = np.tensordot([0.299, 0.587, 0.114], image, axes=1)
        expected = grey_dilation(grey, (3, 3)) - grey_erosion(grey, (3, 3))
        np.testing.assert_allclose(edges[0], expected, atol=1e-6)


def test_edges_know_no_brightness():
    image = torch.full((1, 3, 16, 16), 0.4)
    image[..., 8:] = 0.7
    torch.testing.assert_close(edge_map(image), edge_map(image + 0.2))
    assert edge_map(image)[..., 7:9].min() > 0.2
    assert edge_map(image)[..., :7].abs().max() < 1e-6


def test_levels_halve_the_resolution():
    features = EdgeEncoder([4, 6, 8])(torch.rand(2, 1, 32, 48))
    assert [tuple(each.shape) for each in features] == [(2, 4, 16, 24), (2, 6, 8, 12), (2, 8, 4, 6)]
