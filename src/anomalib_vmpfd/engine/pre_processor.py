# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Pre-processor whose resize is the same in an exported model as in training."""

from collections.abc import Sequence

import torch
from anomalib.pre_processing import PreProcessor
from anomalib.pre_processing.utils.transform import get_exportable_transform
from torch import Tensor
from torchvision.transforms.v2 import Compose, Resize, Transform

from anomalib_vmpfd.nn.grid import resample


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
    rows, columns = (
        _triangle_filter(length, points, images) for length, points in zip(images.shape[-2:], size, strict=True)
    )
    return resample(images, rows, columns)


def _triangle_filter(length: int, points: int, like: Tensor) -> Tensor:
    """Weights ``(points, length)`` of a triangle two source pixels wide, or two target pixels where those are wider."""
    source = torch.arange(length, device=like.device, dtype=like.dtype) + 0.5
    scale = (source[-1:] + 0.5) / points
    centres = scale * (torch.arange(points, device=like.device, dtype=like.dtype) + 0.5)
    weights = (1 - (source - centres[:, None]).abs() / scale.clamp_min(1)).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)
