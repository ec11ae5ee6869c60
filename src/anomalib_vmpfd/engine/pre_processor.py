# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Pre-processor whose resize is the same in an exported model as in training."""

from collections.abc import Sequence

import torch
from anomalib.pre_processing import PreProcessor
from anomalib.pre_processing.utils.transform import get_exportable_transform
from torch import Tensor
from torchvision.transforms.v2 import Compose, Resize, Transform


class AntialiasedPreProcessor(PreProcessor):
    """anomalib's pre-processor, without the loss of antialiasing that its exports suffer.

    anomalib switches antialiasing off in exported models, because ONNX has no operator for torch's. Images that shrink
    then look other than the model was trained and calibrated for. Here a resize is exported as two products with
    matrices of its weights, which any runtime has.
    """

    def forward(self, batch: Tensor) -> Tensor:
        """Transform images outside of a trainer.

        Args:
            batch (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            Tensor: What the transforms made of them.
        """
        if self.transform is None:
            return batch
        return _exportable(self.transform, batch) if torch.compiler.is_exporting() else self.transform(batch)


def _exportable(transform: Transform, images: Tensor) -> Tensor:
    if isinstance(transform, Compose):
        for part in transform.transforms:
            images = _exportable(part, images)
        return images
    if isinstance(transform, Resize) and transform.antialias and len(transform.size) == 2:
        return antialiased_resize(images, transform.size)
    return get_exportable_transform(transform)(images)


def antialiased_resize(images: Tensor, size: Sequence[int]) -> Tensor:
    """``F.interpolate(images, size, mode="bilinear", antialias=True)`` for exports, images of any size.

    Args:
        images (Tensor): Images of shape ``(B, C, H, W)``.
        size (Sequence[int]): Height and width afterwards.

    Returns:
        Tensor: Images of shape ``(B, C, *size)``.
    """
    height, width = size
    rows = _triangle_filter(images.shape[-2], height, images, source_dim=-1)
    columns = _triangle_filter(images.shape[-1], width, images, source_dim=-2)
    return rows @ (images @ columns)


def _triangle_filter(length: int, points: int, images: Tensor, source_dim: int) -> Tensor:
    """Weights of a triangle two source pixels wide, or two target pixels where those are wider, ``(1, 1, ., .)``.

    The size of the images is known when a graph runs, and its runtime may compute in bfloat16. That tells apart whole
    numbers up to 256 only, so places are whole numbers until a weight is known. Nothing is transposed, and there are as
    many dimensions as the images have: where OpenVINO writes a product anew, it forgets that it is to be in float32.
    """
    target_dim = -3 - source_dim
    # twice the places of pixel centres, and twice the length
    source = (2 * torch.arange(length, device=images.device) + 1)[None, None, :].unsqueeze(target_dim)
    target = (2 * torch.arange(points, device=images.device) + 1)[None, None, :].unsqueeze(source_dim)
    twice = source.amax(source_dim, keepdim=True) + 1
    weights = (2 * twice.clamp_min(2 * points) - (2 * points * source - twice * target).abs()).clamp_min(0).to(images)
    return weights / weights.sum(source_dim, keepdim=True)
