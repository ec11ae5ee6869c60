# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What every model of this package shares outside of training: defaults, input checks, checkpoints, exports."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from anomalib.data import Batch, InferenceBatch
from anomalib.deploy.export import CompressionType
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torchvision.transforms.v2 import Compose, Resize

from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor
from anomalib_vmpfd.nn.precision import full_convolutions
from anomalib_vmpfd.plotting import HeatmapVisualizer
from anomalib_vmpfd.predictions.callback import PredictionFiles

from .checkpoint_io import keep_checkpoints_whole, read_whole
from .deep_images import Window, read_through_window
from .drift import DriftGuard, ImageDrift
from .export_metadata import metadata, write_beside, write_into_onnx
from .export_openvino import finish_openvino
from .export_verification import verify_onnx, verify_openvino
from .image_errors import ImageErrors
from .image_range import check_images_in_unit_range
from .image_shape import check_built_for
from .mask_pairs import MaskPairs
from .out_of_place import out_of_place
from .post_processor import RankPreservingPostProcessor, Threshold
from .pre_processor import AntialiasedPreProcessor
from .rebuild import describe, rebuild, refuse_contradictions
from .region_of_interest import zero_outside


class InterfaceMixin(nn.Module):
    """Comes before anomalib's module: refuses images outside [0, 1], and rebuilds a model from its checkpoint.

    Attributes:
        drift (ImageDrift): How far an image is from the normal images that thresholds come from, in brightness,
            contrast and sharpness.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self.drift = ImageDrift()

    @property
    def licences(self) -> dict[str, str]:
        """Licences of the pre-trained weights by the name of their network, for the metadata of exports."""
        return {each.name: each.licence for each in self.modules() if isinstance(each, PatchDescriptor)}

    @classmethod
    def configure_pre_processor(
        cls, image_size: tuple[int, int] | None = None, roi: str | None = None, window: Window | None = None
    ) -> PreProcessor:
        """Resize only: models take images in [0, 1] and normalise them as their networks need.

        Args:
            image_size (tuple[int, int] | None): Height and width in pixels. Defaults to ``(256, 256)``.
            roi (str | None): Picture of the region of interest. Defaults to ``None``: everywhere.
            window (Window | None): Grey values of 16-bit images that become 0 and 1. Defaults to ``None``: 8 bits.

        Returns:
            PreProcessor: Pre-processor with one resize.
        """
        return AntialiasedPreProcessor(Compose([Resize(tuple(image_size or (256, 256)), antialias=True)]), roi, window)

    @classmethod
    def configure_post_processor(
        cls,
        threshold: Threshold = "normals",
        image_fpr: float = 0.05,
        mask_fpr: float = 0.1,
    ) -> RankPreservingPostProcessor:
        """Thresholds from normals; arguments as those of :class:`RankPreservingPostProcessor`."""
        return RankPreservingPostProcessor(threshold, image_fpr, mask_fpr)

    @classmethod
    def configure_visualizer(cls) -> HeatmapVisualizer:
        """Pictures of what every branch saw."""
        return HeatmapVisualizer()

    def configure_callbacks(self) -> list[Callback]:
        """Add what refuses unreadable images and masks of others, tells of drift, and writes a row for each image."""
        # after the post-processor, also where the user brings one of other arguments
        given = [each for each in self.trainer.callbacks if isinstance(each, PredictionFiles)] if self._trainer else []
        return [
            *super().configure_callbacks(),
            ImageErrors(),
            MaskPairs(),
            DriftGuard(),
            *(given or [PredictionFiles()]),
        ]

    @full_convolutions()
    def forward(self, batch: Tensor, *args: Any, **kwargs: Any) -> InferenceBatch:  # noqa: ANN401
        """Scores, maps, labels and masks of images in [0, 1] of shape ``(B, 3, H, W)``, of any size."""
        del args, kwargs
        check_images_in_unit_range(batch)
        predictions = self.model(self.pre_processor(batch) if self.pre_processor else batch)
        predictions = predictions._replace(anomaly_map=self.inside(predictions.anomaly_map))
        return self.post_processor(predictions) if self.post_processor else predictions

    def inside(self, maps: Tensor) -> Tensor:
        """Maps ``(B, 1, H, W)`` that are 0 outside of the region of interest, where there is one."""
        return zero_outside(maps, getattr(self.pre_processor, "region", None))

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, **kwargs: Any) -> "InterfaceMixin":  # noqa: ANN401
        """Load a checkpoint without running code from it; a damaged one, or what contradicts it, is named."""
        if kwargs.get("weights_only", True) and "://" not in str(checkpoint_path):
            # Lightning would take arguments for the trained ones, and a wrong one is not the fault of the file
            refuse_contradictions(kwargs, read_whole(checkpoint_path))
        return super().load_from_checkpoint(checkpoint_path, **kwargs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say in the checkpoint which model it is of."""
        super().on_save_checkpoint(checkpoint)
        describe(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Become the model that was trained; arguments that contradict the checkpoint are an error."""
        rebuild(self, checkpoint)
        super().on_load_checkpoint(checkpoint)
        self.refresh_data()

    def refresh_data(self) -> None:
        """Let a datamodule that was set up before resize images as the pre-processor does now."""
        datamodule: Any = getattr(self._trainer, "datamodule", None)
        if hasattr(datamodule, "_update_augmentations"):
            # images that are resized twice give other scores
            datamodule._update_augmentations()  # noqa: SLF001

    def setup(self, stage: str) -> None:
        """Check the size of images, write checkpoints atomically, and read images of 16 bits where the model does."""
        if hasattr(self, "image_size"):
            check_built_for(type(self).__name__, self.input_size, self.image_size)
        super().setup(stage)
        keep_checkpoints_whole(self.trainer)
        read_through_window(self.trainer, lambda: getattr(self.pre_processor, "reads_deep", False))

    @full_convolutions()
    def validation_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:  # noqa: ANN401
        """Add scores and maps to the batch.

        A validation inside a training looks at nothing when thresholds come from normals and the evaluator has no
        metrics for it; then it costs nothing either.

        Args:
            batch (Batch): Images in [0, 1] of shape ``(B, 3, H, W)``.
            *args (Any): Unused.
            **kwargs (Any): Unused.

        Returns:
            STEP_OUTPUT: The batch.
        """
        del args, kwargs
        thresholds_known = getattr(self.post_processor, "threshold", None) == "normals"
        watched = self.evaluator is not None and len(self.evaluator.val_metrics) > 0
        if self.trainer.state.fn == TrainerFn.FITTING and thresholds_known and not watched:
            return batch
        check_images_in_unit_range(batch.image)
        return self._only_inside(batch.update(**self.model(batch.image)._asdict()))

    @full_convolutions()
    def test_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:  # noqa: ANN401
        """Add scores and maps to the batch, images in [0, 1] of shape ``(B, 3, H, W)``."""
        check_images_in_unit_range(batch.image)
        return self._only_inside(super().test_step(batch, *args, **kwargs))

    @full_convolutions()
    def predict_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:  # noqa: ANN401
        """Add scores and maps to the batch, images in [0, 1] of shape ``(B, 3, H, W)``."""
        check_images_in_unit_range(batch.image)
        return self._only_inside(super().predict_step(batch, *args, **kwargs))

    def _only_inside(self, batch: Batch) -> Batch:
        batch.anomaly_map = self.inside(batch.anomaly_map)
        return batch

    @torch.no_grad()
    @full_convolutions()
    def explain(self, images: Tensor) -> dict[str, Tensor]:
        """What each branch of the model saw in images of any size, for models that have an ``explain`` method.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)`` or ``(3, H, W)``.

        Returns:
            dict[str, Tensor]: Maps and pictures by name, as ``lam``, ``gam``, ``tam`` and ``score``.
        """
        was_training = self.model.training
        self.model.eval()
        images = images.to(self.device)
        images = images if images.ndim == 4 else images[None]
        check_images_in_unit_range(images)
        seen = self.model.explain(self.pre_processor(images) if self.pre_processor else images)
        self.model.train(was_training)
        maps = {name: self.inside(value) for name, value in seen.items() if value.ndim == 4 and value.shape[1] == 1}
        return seen | maps

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Export to PyTorch as anomalib does, with ``metadata.json`` beside it; arguments are those of anomalib's."""
        path = super().to_torch(export_root, model_file_name)
        write_beside(path, metadata(self, None))
        return path

    def to_onnx(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Path:
        """Export to ONNX as anomalib does, in one file, with metadata, and in an operator set that torch still writes.

        Args:
            export_root (Path | str): Folder of the export.
            model_file_name (str): Name of the file without its suffix.
            input_size (tuple[int, int] | None): Fixed height and width of the images; ``None`` takes any.
            **kwargs (Any): Further arguments of ``torch.onnx.export``.

        Returns:
            Path: The file.
        """
        # torch writes no older one, and anomalib's request for 14 would end in a page of failed conversions
        defaults = {"opset_version": 18, "external_data": False}
        with out_of_place(self):
            path = super().to_onnx(export_root, model_file_name, input_size, **(defaults | kwargs))
        if not getattr(self.pre_processor, "runtime_resizes", False):  # a step to another format, which has its own
            write_into_onnx(path, metadata(self, input_size))
            verify_onnx(self, path, input_size)
        return path

    def to_openvino(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        compression_type: CompressionType | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Path:
        """Export to OpenVINO as anomalib does, with metadata, and to be computed image by image in float32.

        Args:
            export_root (Path | str): Folder of the export.
            model_file_name (str): Name of the files without their suffix.
            input_size (tuple[int, int] | None): Fixed height and width of the images; ``None`` takes any.
            compression_type (CompressionType | None): ``None`` or FP16.
            **kwargs (Any): Further arguments of anomalib's ``to_openvino``.

        Returns:
            Path: The ``.xml`` file.

        Raises:
            ValueError: If eight bits are asked for.
        """
        if compression_type is not None and "int8" in str(getattr(compression_type, "value", compression_type)).lower():
            msg = (
                f"compression_type={compression_type} is not supported: in eight bits distances to normals lose what "
                "separates defects, and verdicts change without a word. Leave it out, or give FP16."
            )
            raise ValueError(msg)
        pre_processor = self.pre_processor
        # weights of a resize that are computed when a graph runs are rounded where OpenVINO takes bfloat16
        own_operator = input_size is None and isinstance(pre_processor, AntialiasedPreProcessor)
        with pre_processor.resized_by_the_runtime() if own_operator else nullcontext():
            path = super().to_openvino(export_root, model_file_name, input_size, compression_type, **kwargs)
        finish_openvino(path, metadata(self, input_size))
        verify_openvino(self, path, input_size)
        return path
