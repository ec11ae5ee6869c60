# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Pre-processor whose resize is the same in an exported model as in training."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from anomalib.data import Batch
from anomalib.pre_processing import PreProcessor
from anomalib.pre_processing.utils.transform import get_exportable_transform
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torchvision.transforms.v2 import Compose, Resize, Transform

from .deep_images import Window, parse_window, window_of
from .region_of_interest import only_inside, read_region


class AntialiasedPreProcessor(PreProcessor):
    """anomalib's pre-processor, without the loss of antialiasing that its exports suffer.

    anomalib switches antialiasing off in exported models, because ONNX has no operator for torch's. Images that shrink
    then look other than the model was trained and calibrated for. Here a resize is exported as two products with
    matrices of its weights, which any runtime has; inside :meth:`resized_by_the_runtime` as an operator of the runtime.

    It also hides what lies outside of a region of interest: from learning, calibration, scores and exports alike. The
    region is read when a training starts, and goes with checkpoints and exports.

    Args:
        transform (Transform | None): Transform of the images.
        roi (str | None): Picture whose pixels are above 0 inside of the region. Defaults to ``None``: everywhere.
        window (Window | None): Grey values of 16-bit images that become 0 and 1, see :func:`parse_window`. Defaults to
            ``None``: images have 8 bits.
    """

    region: Tensor | None
    window: Tensor | None
    runtime_resizes = False  # of the class, as pickled models of before have none

    def __init__(
        self, transform: Transform | None = None, roi: str | None = None, window: Window | None = None
    ) -> None:
        super().__init__(transform)
        self._roi, self._window = roi, window
        if window is not None:
            parse_window(window)
        self.register_buffer("region", None)
        self.register_buffer("window", None)

    @property
    def reads_deep(self) -> bool:
        """Whether it takes images of 16 bits."""
        return self._window is not None or self.window is not None

    @contextmanager
    def resized_by_the_runtime(self) -> Generator[None, None, None]:
        """Export a resize inside as ONNX's ``Resize`` with antialiasing.

        Runtimes differ in how they read that: ONNX Runtime as PyTorch, OpenVINO not at all before
        :func:`.export_openvino.finish_openvino`, others have none.
        """
        self.runtime_resizes = True
        try:
            yield
        finally:
            self.runtime_resizes = False

    def look_at(self, paths: Sequence[str], size: Sequence[int]) -> None:
        """Learn region and window at the start of a training, unless a checkpoint brought them.

        Args:
            paths (Sequence[str]): Training images.
            size (Sequence[int]): Height and width that images are resized to.
        """
        if self._roi is not None and self.region is None:
            self.region = read_region(self._roi, size)
        if self._window is not None and self.window is None:
            self.window = window_of(self._window, paths)

    def _seen(self, images: Tensor) -> Tensor:
        if self.window is not None:
            low, high = self.window.to(images.device)
            images = ((images - low) / (high - low)).clamp(0, 1)
        return only_inside(images, self.region)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Transform images and masks of a batch, and hide what lies outside."""
        del dataloader_idx
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        batch.image = self._seen(batch.image)
        if self.region is not None and getattr(batch, "gt_mask", None) is not None:
            defective = batch.gt_mask.flatten(1).any(1)
            batch.gt_mask = batch.gt_mask * self.region[0]
            # a defect outside is none, one without a mask stays
            batch.gt_label = batch.gt_label & ~(defective & ~batch.gt_mask.flatten(1).any(1))

    on_validation_batch_start = on_test_batch_start = on_predict_batch_start = on_train_batch_start

    def checkpoint_config(self) -> dict[str, Any]:
        """Settings as plain data; region and window themselves are among the weights."""
        region = None if self.region is None else list(self.region.shape)
        return {**super().checkpoint_config(), "region": region, "window": self.window is not None}

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore settings, and make room for region and window."""
        super().load_checkpoint_config(config)
        shape = config.get("region")
        self.region = None if shape is None else torch.ones(shape, dtype=torch.bool)
        self.window = torch.zeros(2) if config.get("window") else None

    def forward(self, batch: Tensor) -> Tensor:
        """Transform images outside of a trainer.

        Args:
            batch (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            Tensor: What the transforms made of them.
        """
        if self.transform is not None:
            resize = _resize_of_the_runtime if self.runtime_resizes else antialiased_resize
            exporting = torch.compiler.is_exporting()
            batch = _exportable(self.transform, batch, resize) if exporting else self.transform(batch)
        return self._seen(batch)


def own_or_given(
    own: Callable[[tuple[int, int], str | None, Window | None], PreProcessor],
    given: PreProcessor | bool,
    image_size: tuple[int, int],
    roi: str | None,
    window: Window | None,
) -> PreProcessor | bool:
    """The pre-processor that a model is given, or its own where that is ``True``.

    Args:
        own (Callable): Makes the model's own.
        given (PreProcessor | bool): The model's argument.
        image_size (tuple[int, int]): Height and width in pixels.
        roi (str | None): See :class:`AntialiasedPreProcessor`.
        window (Window | None): See :class:`AntialiasedPreProcessor`.

    Returns:
        PreProcessor | bool: What anomalib's module takes.

    Raises:
        ValueError: If ``roi`` or ``window`` has no effect beside the one given.
    """
    if given is True:
        return own(image_size, roi, window)
    if given and (roi, window) != (None, None):
        msg = "roi and window have no effect beside a pre_processor of your own; leave them out."
        raise ValueError(msg)
    return given


def _exportable(transform: Transform, images: Tensor, resize: Callable[[Tensor, Sequence[int]], Tensor]) -> Tensor:
    if isinstance(transform, Compose):
        for part in transform.transforms:
            images = _exportable(part, images, resize)
        return images
    if isinstance(transform, Resize) and transform.antialias and len(transform.size) == 2:
        return resize(images, transform.size)
    return get_exportable_transform(transform)(images)


def _resize_of_the_runtime(images: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(images, (size[0], size[1]), mode="bilinear", antialias=True)


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
    many dimensions as the images have.
    """
    target_dim = -3 - source_dim
    # twice the places of pixel centres, and twice the length
    source = (2 * torch.arange(length, device=images.device) + 1)[None, None, :].unsqueeze(target_dim)
    target = (2 * torch.arange(points, device=images.device) + 1)[None, None, :].unsqueeze(source_dim)
    twice = source.amax(source_dim, keepdim=True) + 1
    weights = (2 * twice.clamp_min(2 * points) - (2 * points * source - twice * target).abs()).clamp_min(0).to(images)
    return weights / weights.sum(source_dim, keepdim=True)
