# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Windows of grey values, and images of 16 bits."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.engine.deep_images import parse_window, read_deep, window_of
from anomalib_vmpfd.engine.image_errors import ImageError


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ((1000, 20000), (1000, 20000, False)),
        ("1000, 20000", (1000, 20000, False)),
        ("0.5%,99%", (0.5, 99, True)),
    ],
)
def test_a_window_is_two_grey_values_or_two_percentiles(window, expected):
    assert parse_window(window) == expected


@pytest.mark.parametrize("window", ["5", "9,5", "1%,5", "a,b", "0,70000", "-1,5", "1%,101%", (1, 2, 3), (5, 5)])
def test_another_window_is_refused(window):
    with pytest.raises(ValueError, match=r"must be two grey values .* or two percentiles"):
        VmpfdAd(window=window)


def test_percentiles_are_those_of_the_pixels(tmp_path):
    images = np.random.default_rng(0).integers(500, 60000, (3, 50, 50)).astype(np.uint16)
    paths = [str(tiny.save(tmp_path / f"{index}.png", image)) for index, image in enumerate(images)]
    np.testing.assert_allclose(window_of("2%,98%", paths) * 65535, np.percentile(images, [2, 98]), rtol=1e-5)
    np.testing.assert_allclose(window_of((100, 200), paths) * 65535, [100, 200], rtol=1e-6)
    seen = read_deep(paths[0])
    assert seen.shape == (3, 50, 50)
    torch.testing.assert_close(seen[1] * 65535, torch.from_numpy(images[0].astype(np.float32)))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colour_keeps_all_16_bits_of_each_channel(tmp_path, suffix, channels):
    pixels = np.random.default_rng(0).integers(0, 60000, (40, 30, channels)).astype(np.uint16)
    path = str(tmp_path / f"colour.{suffix}")
    bgr = np.dstack([pixels[..., 2::-1], pixels[..., 3:]])
    assert cv2.imwrite(path, bgr)
    torch.testing.assert_close(
        read_deep(path) * 65535, torch.from_numpy(pixels[..., :3].astype(np.float32)).permute(2, 0, 1)
    )
    expected = np.percentile(pixels[..., :3], [2, 98])
    np.testing.assert_allclose(window_of("2%,98%", [path]) * 65535, expected, rtol=1e-5)
    Image.fromarray((pixels // 256).astype(np.uint8)).save(path)
    with pytest.raises(ImageError, match="8 bits a channel"):
        read_deep(path)


def test_what_does_not_fit_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"a\.png: 8 bits a channel"):
        read_deep(tiny.save(tmp_path / "a.png", np.zeros((4, 4), np.uint8)))
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "b.tiff")
    with pytest.raises(ImageError, match=r"b\.tiff: grey values from 70000 to 70000 do not fit into 16 bits"):
        read_deep(tmp_path / "b.tiff")
    flat = str(tiny.save(tmp_path / "c.png", np.full((4, 4), 4000, np.uint16)))
    with pytest.raises(ValueError, match=r"both percentiles of the training images are the grey value 4000"):
        window_of("1%,99%", [flat])
