# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The visualizer of tests and predictions: one picture per image, with the maps that explain its score."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anomalib.data import ImageBatch, ImageItem, NumpyImageBatch, NumpyImageItem
from anomalib.visualization import ImageVisualizer
from matplotlib.colors import Normalize
from PIL import Image
from torch import Tensor

from anomalib_vmpfd.predictions.picture_names import PictureNames, image_paths

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

    It shows the input, the ground truth where there is one, the contour of the predicted mask, the panels that the
    model's ``explain`` returns (for VmpfdAd the reconstruction, LAM, GAM and TAM), and score and image threshold. Maps
    of ``explain`` have one fixed scale in all pictures: 0 and 1 are the calibration quantiles of the normal images.
    For models without ``explain``, such as anomalib's own, the anomaly map is shown on a scale from 0 to 1.

    ``explain(images)`` of a model returns a dictionary of tensors ``(B, 1, H, W)``, calibrated maps with the one that
    masks are made from among them, or ``(B, 3, H, W)``, images in [0, 1]; other tensors, such as scores ``(B,)``, are
    not shown. Its Lightning module may define ``panel_titles: dict[str, str]``, the title of every panel that
    ``fields`` may name, so that wrong names are refused before a training and not at the first picture, and
    ``panel_kinds: dict[str, str]`` (``"image"``, ``"mask"`` or ``"map"``).

    Args:
        fields (list[str] | None): Panels in their order: ``image``, ``gt_mask``, ``pred_mask``, ``anomaly_map`` and the
            names that ``explain`` returns; those that an image does not have are omitted. Defaults to ``None``: all,
            the anomaly map only where ``explain`` returns no map.
        field_size (tuple[int, int]): Size of a panel; the longer side is that of the image. Defaults to ``(256, 256)``.
        output_dir (str | Path | None): Folder of the pictures. Defaults to ``None``: ``images`` in the results.

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
        super().__init__(fields=fields or list(TITLES), field_size=field_size, output_dir=output_dir)
        self._all = not fields
        self._names: PictureNames | None = None

    def visualize(
        self,
        predictions: ImageItem | NumpyImageItem | ImageBatch | NumpyImageBatch,
        explained: Mapping[str, Tensor] | None = None,
        post_processor: "PostProcessor | None" = None,
        panel_titles: Mapping[str, str] | None = None,
        panel_kinds: Mapping[str, Kind] | None = None,
    ) -> Image.Image | list[Image.Image | None] | None:
        """Draw predictions.

        Args:
            predictions (ImageItem | NumpyImageItem | ImageBatch | NumpyImageBatch): One image or a batch.
            explained (Mapping[str, Tensor] | None): What ``explain`` returns for the same images.
            post_processor (PostProcessor | None): Post-processor that thresholds the predictions.
            panel_titles (Mapping[str, str] | None): Titles of the model's own panels.
            panel_kinds (Mapping[str, Kind] | None): Kinds of the model's own panels.

        Returns:
            Image.Image | list[Image.Image | None] | None: A picture, or for a batch of several images a list.

        Raises:
            ValueError: If a field is known neither to the visualizer nor to the model.
        """
        explained = {name: values for name, values in (explained or {}).items() if values.ndim > 2}
        titles, kinds = TITLES | dict(panel_titles or {}), KINDS | dict(panel_kinds or {})
        self._check_fields([*titles, *explained])
        batch = isinstance(predictions, (ImageBatch, NumpyImageBatch))
        pictures = [
            self._picture(item, {name: x[index] for name, x in explained.items()}, titles, kinds, post_processor)
            for index, item in enumerate(predictions if batch else [predictions])
        ]
        return pictures[0] if len(pictures) == 1 else pictures

    def setup(self, trainer: "Trainer", pl_module: "AnomalibModule", stage: str) -> None:
        """Refuse unknown fields before a training, where the model's panels are known in advance."""
        super().setup(trainer, pl_module, stage)
        titles = getattr(pl_module, "panel_titles", None)
        if titles is not None or not hasattr(pl_module.model, "explain"):
            self._check_fields([*TITLES, *(titles or {})])

    def on_test_start(self, trainer: "Trainer", pl_module: "AnomalibModule") -> None:
        """Begin a run: names of an earlier one may be used again."""
        super().on_test_start(trainer, pl_module)
        self._names = None

    def on_predict_start(self, trainer: "Trainer", pl_module: "AnomalibModule") -> None:
        """Begin a run: names of an earlier one may be used again."""
        super().on_predict_start(trainer, pl_module)
        self._names = None

    def on_test_batch_end(
        self,
        trainer: "Trainer",
        pl_module: "AnomalibModule",
        outputs: ImageBatch,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save a picture of every image of the batch, named after the image."""
        del outputs
        if self._names is None:
            datamodule = getattr(trainer, "datamodule", None)
            self._names = PictureNames(
                Path(self.output_dir or Path(trainer.default_root_dir) / "images"),
                getattr(datamodule, "name", None),
                getattr(datamodule, "category", None),
                image_paths(trainer),
            )
        explain = getattr(pl_module.model, "explain", None)
        with torch.no_grad():
            explained = None if explain is None else explain(batch.image)
        if explained is not None and hasattr(pl_module, "inside"):
            explained = {n: pl_module.inside(v) if v.ndim == 4 and v.shape[1] == 1 else v for n, v in explained.items()}
        pictures = self.visualize(
            batch,
            explained,
            getattr(pl_module, "post_processor", None),
            getattr(pl_module, "panel_titles", None),
            getattr(pl_module, "panel_kinds", None),
        )
        pictures = pictures if isinstance(pictures, list) else [pictures]
        numbers = f"{batch_idx:04}" if dataloader_idx == 0 else f"{dataloader_idx}-{batch_idx:04}"
        paths = batch.image_path or [f"{numbers}-{index:02}.png" for index in range(len(pictures))]
        for path, picture in zip(paths, pictures, strict=True):
            if picture is not None:
                name = self._names(path)
                name.parent.mkdir(parents=True, exist_ok=True)
                picture.save(name, quality=92)

    def _check_fields(self, known: Iterable[str]) -> None:
        known = list(dict.fromkeys(known))
        if unknown := set(self.fields) - set(known):
            msg = f"Unknown fields {', '.join(sorted(unknown))}; choose among {', '.join(known)}."
            raise ValueError(msg)

    def _picture(
        self,
        item: ImageItem | NumpyImageItem,
        explained: dict[str, Tensor],
        titles: dict[str, str],
        kinds: dict[str, Kind],
        post_processor: "PostProcessor | None",
    ) -> Image.Image | None:
        values: dict[str, Any] = {"image": _image(item), "gt_mask": item.gt_mask, "anomaly_map": item.anomaly_map}
        values |= {"pred_mask": None if item.pred_mask is None else values["image"], **explained}
        kinds = {name: _kind(panel) for name, panel in explained.items()} | kinds
        maps = {name for name in explained if kinds[name] == "map"}
        fields = self.fields
        if self._all:
            fields = [name for name in dict.fromkeys([*TITLES, *explained]) if name != "anomaly_map" or not maps]
            fields.sort(key=lambda name: kinds.get(name, "map") == "map")  # maps last, as the figure's second row
        fields = [name for name in fields if values.get(name) is not None]
        if not fields:
            return None
        contour = None if item.pred_mask is None else to_array(item.pred_mask).squeeze()
        panels = []
        for name in fields:
            kind = kinds.get(name, "map")
            drawn = to_array(values[name])
            panels.append(
                Panel(
                    title=titles.get(name, name),
                    values=drawn if kind == "image" else drawn.squeeze(),
                    kind=kind,
                    contour=contour if name == "pred_mask" else None,
                ),
            )
        calibrated = not maps.isdisjoint(fields)
        figure = heatmap_figure(
            panels,
            Path(*Path(item.image_path).parts[-3:]).as_posix() if item.image_path else "",
            _verdict(item, post_processor),
            scale=None if calibrated else Normalize(0, 1, clip=True),
            threshold=pixel_threshold(post_processor, calibrated=calibrated),
            panel_size=max(self.field_size),
        )
        return to_picture(figure)


def _kind(panel: Tensor) -> Kind:
    return "image" if panel.ndim == 3 and len(panel) == 3 else "map"


def _image(item: ImageItem | NumpyImageItem) -> Tensor | np.ndarray | None:
    """The input image; read from its file if the values are normalised for the network."""
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
