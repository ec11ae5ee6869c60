# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The visualizer of VmpfdAd: what every branch saw, in one picture an image."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anomalib.data import ImageBatch, ImageItem, NumpyImageBatch, NumpyImageItem
from anomalib.utils.path import generate_output_filename
from anomalib.visualization import ImageVisualizer
from matplotlib.colors import Normalize
from PIL import Image
from torch import Tensor

from .arrays import to_array
from .heatmap_figure import Kind, Panel, heatmap_figure, to_picture
from .threshold import pixel_threshold

if TYPE_CHECKING:
    from anomalib.models import AnomalibModule
    from anomalib.post_processing import PostProcessor
    from lightning.pytorch import Trainer

TITLES = {
    "image": "Input",
    "gt_mask": "Ground truth",
    "pred_mask": "Found",
    "reconstruction": "Reconstruction",
    "lam": "LAM (local)",
    "gam": "GAM (global)",
    "tam": "TAM (both)",
    "anomaly_map": "Anomaly map",
}
KINDS: dict[str, Kind] = {"image": "image", "reconstruction": "image", "pred_mask": "image", "gt_mask": "mask"}


class HeatmapVisualizer(ImageVisualizer):
    """Save a picture of every image that is tested or predicted.

    It shows the input, the ground truth where there is one, the outline of what lies above the pixel threshold, the
    reconstruction where the model makes one, LAM, GAM and TAM on one fixed scale (0 and 1 are the calibration quantiles
    of the normals), and score and image threshold. Models that cannot explain themselves by an ``explain`` method, as
    anomalib's own, get their anomaly map from 0 to 1 instead of LAM, GAM and TAM.

    Args:
        fields (list[str] | None): Panels in their order, of ``image``, ``gt_mask``, ``pred_mask``,
            ``reconstruction``, ``lam``, ``gam``, ``tam`` and ``anomaly_map``; those that an image lacks are left out.
            Defaults to ``None``: all, the anomaly map only where there is no TAM.
        field_size (tuple[int, int]): Room for a panel, its longer side is the longer side of the image. Defaults to
            ``(256, 256)``.
        output_dir (str | Path | None): Folder for the pictures. Defaults to ``None``: ``images`` in the results.

    Raises:
        ValueError: If a field is unknown.

    Example:
        >>> from anomalib_vmpfd import VmpfdAd
        >>> from anomalib_vmpfd.plotting import HeatmapVisualizer
        >>> model = VmpfdAd(visualizer=HeatmapVisualizer(fields=["image", "tam", "pred_mask"]))
    """

    def __init__(
        self,
        fields: list[str] | None = None,
        field_size: tuple[int, int] = (256, 256),
        output_dir: str | Path | None = None,
    ) -> None:
        if unknown := set(fields or []) - TITLES.keys():
            msg = f"Unknown fields {', '.join(sorted(unknown))}; choose among {', '.join(TITLES)}."
            raise ValueError(msg)
        super().__init__(fields=fields or list(TITLES), field_size=field_size, output_dir=output_dir)
        self._all = fields is None

    def visualize(
        self,
        predictions: ImageItem | NumpyImageItem | ImageBatch | NumpyImageBatch,
        explained: dict[str, Tensor] | None = None,
        post_processor: "PostProcessor | None" = None,
    ) -> Image.Image | list[Image.Image | None] | None:
        """Draw predictions.

        Args:
            predictions (ImageItem | NumpyImageItem | ImageBatch | NumpyImageBatch): One image or a batch.
            explained (dict[str, Tensor] | None): What ``explain`` says about the same images.
            post_processor (PostProcessor | None): Whose thresholds the predictions are compared with.

        Returns:
            Image.Image | list[Image.Image | None] | None: A picture, or for a batch of several images a list.
        """
        if isinstance(predictions, (ImageBatch, NumpyImageBatch)):
            pictures = []
            for index, item in enumerate(predictions):
                seen = {name: values[index] for name, values in (explained or {}).items()}
                pictures.append(self._picture(item, seen, post_processor))
            return pictures[0] if len(pictures) == 1 else pictures
        return self._picture(predictions, {name: v[0] for name, v in (explained or {}).items()}, post_processor)

    def on_test_batch_end(
        self,
        trainer: "Trainer",
        pl_module: "AnomalibModule",
        outputs: ImageBatch,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save a picture of every image of the batch under its own name."""
        del outputs, dataloader_idx
        folder = Path(self.output_dir or Path(trainer.default_root_dir) / "images")
        datamodule = getattr(trainer, "datamodule", None)
        explain = getattr(pl_module.model, "explain", None)
        with torch.no_grad():
            explained = None if explain is None else explain(batch.image)
        post_processor = getattr(pl_module, "post_processor", None)
        pictures = self.visualize(batch, explained, post_processor)
        pictures = pictures if isinstance(pictures, list) else [pictures]
        paths = batch.image_path or [f"{batch_idx:04}-{index:02}.png" for index in range(len(pictures))]
        for path, picture in zip(paths, pictures, strict=True):
            if picture is not None:
                name = generate_output_filename(
                    input_path=path,
                    output_path=folder,
                    dataset_name=getattr(datamodule, "name", None),
                    category=getattr(datamodule, "category", None),
                )
                picture.save(name, quality=92)

    def _picture(
        self,
        item: ImageItem | NumpyImageItem,
        explained: dict[str, Tensor],
        post_processor: "PostProcessor | None",
    ) -> Image.Image | None:
        seen: dict[str, Any] = {"image": _image(item), "gt_mask": item.gt_mask, "anomaly_map": item.anomaly_map}
        seen |= {"pred_mask": None if item.pred_mask is None else seen["image"], **explained}
        if self._all and "tam" in explained:
            del seen["anomaly_map"]
        outline = None if item.pred_mask is None else to_array(item.pred_mask).squeeze()
        panels = [
            Panel(
                title=TITLES[name],
                values=to_array(seen[name]) if KINDS.get(name) == "image" else to_array(seen[name]).squeeze(),
                kind=KINDS.get(name, "map"),
                contour=outline if name == "pred_mask" else None,
            )
            for name in self.fields
            if seen.get(name) is not None
        ]
        if not panels:
            return None
        calibrated = "tam" in explained
        figure = heatmap_figure(
            panels,
            Path(*Path(item.image_path).parts[-3:]).as_posix() if item.image_path else "",
            _verdict(item, post_processor),
            scale=None if calibrated else Normalize(0, 1, clip=True),
            threshold=pixel_threshold(post_processor, calibrated=calibrated),
            panel_size=max(self.field_size),
        )
        return to_picture(figure)


def _image(item: ImageItem | NumpyImageItem) -> Tensor | np.ndarray | None:
    """The image that the model saw; its file where the model's input was normalised for its network."""
    image = item.image
    if image is not None and image.min() >= 0 and image.max() <= 1:
        return image
    if not item.image_path:
        return None
    size = None if image is None else image.shape[-2:] if isinstance(image, Tensor) else image.shape[:2]
    with Image.open(item.image_path) as file:
        picture = file.convert("RGB")
    return np.asarray(picture.resize(tuple(size[::-1])) if size else picture) / 255


def _verdict(item: ImageItem | NumpyImageItem, post_processor: "PostProcessor | None") -> str:
    words = {True: "anomalous", False: "normal"}
    parts = []
    if item.pred_score is not None:
        parts.append(f"score {float(item.pred_score):.3f}")
        if post_processor is not None:
            parts[0] += f" (threshold {float(post_processor.normalized_image_threshold):.3f})"
    if item.pred_label is not None:
        parts.append(f"judged {words[bool(item.pred_label)]}")
    if item.gt_label is not None:
        parts.append(f"labelled {words[bool(item.gt_label)]}")
    return "  ·  ".join(parts)
