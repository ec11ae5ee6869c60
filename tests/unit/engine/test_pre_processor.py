# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_vmpfd.engine.pre_processor import AntialiasedPreProcessor, antialiased_resize

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("shape", [(512, 512), (37, 400), (64, 48), (640, 30)])
def test_the_exportable_resize_is_that_of_torch(shape):
    images = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(images, (64, 48), mode="bilinear", antialias=True)
    torch.testing.assert_close(antialiased_resize(images, (64, 48)), expected, rtol=0, atol=1e-5)


def test_an_exported_program_transforms_images_of_any_size_as_the_trainer_does():
    mean_std = ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    pre_processor = AntialiasedPreProcessor(Compose([Resize((64, 48), antialias=True), Normalize(*mean_std)]))
    batch, height, width = (torch.export.Dim(name, min=2, max=2048) for name in ("batch", "height", "width"))
    program = torch.export.export(
        pre_processor,
        (torch.rand(2, 3, 70, 70),),
        dynamic_shapes=({0: batch, 2: height, 3: width},),
        strict=False,
    ).module()
    for shape in ((3, 3, 300, 200), (2, 3, 33, 500)):
        images = torch.rand(shape)
        torch.testing.assert_close(program(images), pre_processor.transform(images), rtol=0, atol=1e-4)
