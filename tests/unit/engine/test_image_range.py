# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What is no batch of images in [0, 1] ends in one sentence with the cure."""

import numpy as np
import pytest
import torch

from anomalib_vmpfd.engine.image_range import check_images_in_unit_range

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ((255 * IMAGES).byte(), ValueError, "must be floating-point in .0, 1., got torch.uint8; give images / 255"),
        (255 * IMAGES, ValueError, r"must lie in \[0, 1\], these go from .* to 25\d; divide 8-bit values by 255"),
        ((IMAGES - 0.45) / 0.225, ValueError, "these go from -1.*do not normalise for a backbone"),
        (IMAGES[0], ValueError, r"shape \(B, 3, H, W\), got \(3, 8, 8\); a single image needs images\[None\]"),
        (IMAGES[:, :1], ValueError, r"shape \(B, 3, H, W\), got \(2, 1, 8, 8\)"),
        (IMAGES.movedim(1, -1), ValueError, r"shape \(B, 3, H, W\), got \(2, 8, 8, 3\)"),
        (np.zeros((8, 8, 3), np.uint8), TypeError, r"must be a torch tensor .* got ndarray; .*torch.from_numpy"),
        ("image.png", TypeError, "got str"),
    ],
    ids=["uint8", "0 to 255", "normalised", "one image", "grey", "channels last", "NumPy array", "path"],
)
def test_other_input_is_refused_with_the_cure(images, error, message):
    with pytest.raises(error, match=message):
        check_images_in_unit_range(images)


def test_the_cure_for_an_array_is_one():
    array = np.full((8, 8, 3), 255, np.uint8)
    check_images_in_unit_range(torch.from_numpy(array).permute(2, 0, 1)[None] / 255.0)


@pytest.mark.parametrize("value", [0.0, 1.0, -5e-4, 1 + 5e-4, float("nan"), float("inf"), -float("inf")])
def test_images_pass_also_with_values_that_are_not_numbers_and_the_rounding_of_a_resize(value):
    images = IMAGES.clone()
    images[1, 0, 3, 3] = value
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        check_images_in_unit_range(images.to(dtype))
    check_images_in_unit_range(images[:0])


def test_a_value_that_is_not_finite_does_not_excuse_the_others():
    images = 255 * IMAGES
    images[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], these go from .* to 25\d"):
        check_images_in_unit_range(images)


def test_traced_graphs_do_not_look():
    class Checked(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            check_images_in_unit_range(images)
            return images + 1

    program = torch.export.export(Checked(), (IMAGES,), strict=False).module()
    torch.testing.assert_close(program(300 * IMAGES), 300 * IMAGES + 1)
