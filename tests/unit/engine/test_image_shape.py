# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Users whose images are squeezed learn of a size that does not."""

import re

import pytest
from PIL import Image

from anomalib_vmpfd.engine.image_shape import size_of_shape, warn_if_squeezed


@pytest.mark.parametrize("ratio", [1 / 3, 0.5, 2 / 3, 1.0, 1.6, 2.48, 3.0])
@pytest.mark.parametrize("side", [256, 512])
def test_a_size_keeps_shape_and_pixels(ratio, side):
    height, width = size_of_shape(ratio, side * side)
    assert height % 32 == width % 32 == 0
    assert height / width == pytest.approx(ratio, rel=0.12)
    assert height * width == pytest.approx(side * side, rel=0.12)


def test_images_without_files_are_left_alone(caplog):
    warn_if_squeezed([], (256, 256))
    assert not caplog.records


@pytest.mark.parametrize("size", [(500, 1240), (900, 300), (256, 256), (400, 300)])
def test_the_size_it_names_is_one_it_is_content_with(tmp_path, caplog, size):
    paths = []
    for index in range(40):
        paths.append(str(tmp_path / f"{index}.png"))
        # one image in another shape does not decide
        Image.new("L", size if index else size[::-1]).save(paths[-1])
    (tmp_path / "39.png").write_bytes(b"no image")
    warn_if_squeezed(paths, (256, 256))
    squeezed = max(size) > 1.5 * min(size)
    assert len(caplog.records) == squeezed
    if squeezed:
        named = tuple(map(int, re.search(r"image_size=\[(\d+),(\d+)\]", caplog.text).groups()))
        assert (named[0] > named[1]) == (size[1] > size[0])
        caplog.clear()
        warn_if_squeezed(paths, named)
        assert not caplog.records
