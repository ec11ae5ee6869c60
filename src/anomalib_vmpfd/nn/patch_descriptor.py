# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Frozen patch descriptors: EfficientAD's PDN or the stages of a timm backbone, normalised on the normal images.

Paper: Batzner et al., "EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies", WACV 2024,
https://arxiv.org/abs/2303.14535. The networks are anomalib's own.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import timm
import torch
from anomalib.models.components import TimmFeatureExtractor
from anomalib.models.image.efficient_ad.torch_model import (
    MediumPatchDescriptionNetwork,
    SmallPatchDescriptionNetwork,
)
from torch import Tensor, nn

from anomalib_vmpfd.weights import PDN_CHANNELS, WeightsError, load_backbone_state_dict, load_pdn_state_dict

from .fold_batch_norm import fold_batch_norms
from .grid import Axis, Grid, Resample

PDN_STRIDE = 4
PDN_RECEPTIVE_FIELD = 33
BUNDLED_BACKBONE = "tf_efficientnet_lite2"
BUNDLED_LAYERS = ("blocks.2", "blocks.4")
# Centre of the effective receptive field of the first cell, in pixels: the centre of mass of squared gradients. The
# theoretical receptive field of the padded convolutions would put the cells up to five pixels too far on.
BUNDLED_CENTRES = {"blocks.1": 2.5, "blocks.2": 3.5, "blocks.4": 10.0}


class PatchDescriptor(nn.Module):
    """Describe every patch of an image by a frozen pre-trained network, ``f_PDN`` of equation 10.

    The weights arrive through :meth:`load_weights` and the statistics through :meth:`fit_statistics`, both once, at
    the start of a training; a checkpoint carries them, so that loading one needs neither.

    Args:
        name (str): ``"pdn_small"``, ``"pdn_medium"`` or ``"timm/<backbone>"``.
        image_size (tuple[int, int]): Height and width of the images in pixels.
        layers (Sequence[str | int] | None): Stages of a timm backbone as anomalib's ``TimmFeatureExtractor`` names
            them; they are brought to one grid and stacked. ``None`` for a PDN, which has one output, and for the
            stages of the bundled backbone that describe normals best.
        grid (int | None): Cells along the shorter side of the image; ``None`` takes the grid of the finest stage, to
            which the coarser ones are interpolated.
        weights (str): Pre-trained weights: ``"bundled"`` (shipped with this package), ``"official"`` (the publisher's
            download, that is anomalib's EfficientAD teacher or timm's pre-trained weights) or the path of a file.

    Attributes:
        channels (int): Number of channels ``C``.
        grid (Grid): Where its cells lie in the image.

    Raises:
        ValueError: If the name is unknown, the layers do not fit it, or the image is smaller than the receptive field.

    Example:
        >>> descriptor = PatchDescriptor("pdn_small", (256, 256))
        >>> descriptor(torch.rand(1, 3, 256, 256)).shape
        torch.Size([1, 384, 56, 56])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        image_size: tuple[int, int],
        layers: Sequence[str | int] | None = None,
        grid: int | None = None,
        weights: str = "bundled",
    ) -> None:
        super().__init__()
        if min(image_size) < PDN_RECEPTIVE_FIELD:
            msg = (
                f"Images of {image_size[0]}x{image_size[1]} pixels are smaller than the {PDN_RECEPTIVE_FIELD} pixels "
                "that one patch descriptor sees; use a larger image_size."
            )
            raise ValueError(msg)
        self.name = name
        self.weights = weights
        self._layers = layers
        self._image_size = tuple(image_size)
        self.network = self._frozen(_build(name, layers))
        with torch.no_grad():
            maps = self._maps(torch.zeros(1, 3, *image_size))
        self.channels = sum(m.shape[1] for m in maps)
        sizes = [(m.shape[-2], m.shape[-1]) for m in maps]
        names = layers or (BUNDLED_LAYERS if len(sizes) > 1 else (None,))
        grids = [self._grid(size, layer) for size, layer in zip(sizes, names, strict=True)]
        self.grid = max(grids, key=lambda each: each.shape)
        if grid is not None:
            ratio = min(self.grid.shape) / grid
            height, width = (round(count / ratio) for count in self.grid.shape)
            self.grid = self.grid.pooled((height, width))
        self.resample = nn.ModuleList(Resample(each, self.grid) for each in grids)
        self.register_buffer("mean", torch.zeros(1, self.channels, 1, 1))
        self.register_buffer("std", torch.ones(1, self.channels, 1, 1))

    def _frozen(self, network: nn.Module) -> nn.Module:
        # what light convolutions lose time with on a CPU: batch norms, and the default memory layout
        frozen = network.eval().requires_grad_(requires_grad=False)
        return fold_batch_norms(frozen, torch.zeros(1, 3, *self._image_size)).to(memory_format=torch.channels_last)

    def _grid(self, size: tuple[int, int], layer: str | int | None) -> Grid:
        """Where the cells of one output lie."""
        if not isinstance(self.network, TimmFeatureExtractor):
            # without padding, cell i of a PDN sees the pixels 4 i .. 4 i + 32
            return Grid(*(Axis(count, PDN_STRIDE, (PDN_RECEPTIVE_FIELD - 1) / 2) for count in size))
        strides = [pixels / count for pixels, count in zip(self._image_size, size, strict=True)]
        centres = BUNDLED_CENTRES if self.name == f"timm/{BUNDLED_BACKBONE}" else {}
        return Grid(
            *(
                Axis(count, stride, centres.get(str(layer), (stride - 1) / 2))
                for count, stride in zip(size, strides, strict=True)
            )
        )

    def load_weights(self) -> None:
        """Load the pre-trained weights.

        Raises:
            WeightsError: If the weights cannot be had or do not fit the network.
        """
        if isinstance(self.network, TimmFeatureExtractor):
            network = _build(self.name, self._layers)
            backbone = self.name.removeprefix("timm/")
            network.feature_extractor.load_state_dict(_backbone_state_dict(backbone, network, self.weights))
            self.network.load_state_dict(self._frozen(network).state_dict())
        else:
            small = isinstance(self.network, SmallPatchDescriptionNetwork)
            self.network.load_state_dict(load_pdn_state_dict(self.weights, "small" if small else "medium"))

    def _maps(self, images: Tensor) -> list[Tensor]:
        images = images.contiguous(memory_format=torch.channels_last)
        if not isinstance(self.network, TimmFeatureExtractor):
            # the PDN normalises its input itself
            return [self.network(images)]
        config = self.network.feature_extractor.default_cfg
        mean, std = (images.new_tensor(config[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
        return list(self.network((images - mean) / std).values())

    @torch.no_grad()
    def describe(self, images: Tensor) -> Tensor:
        """Describe images without normalisation.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            Tensor: Descriptors of shape ``(B, C, h, w)``.
        """
        maps = self._maps(images)
        if len(maps) == 1 and tuple(maps[0].shape[-2:]) == self.grid.shape:
            return maps[0].contiguous()
        return torch.cat([resample(m.float()) for m, resample in zip(maps, self.resample, strict=True)], dim=1)

    def normalize(self, descriptors: Tensor) -> Tensor:
        """Normalise descriptors ``(B, C, h, w)`` per channel to zero mean and unit variance on the normals."""
        return (descriptors.to(self.mean.dtype) - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Describe images in [0, 1] of shape ``(B, 3, H, W)`` by normalised descriptors ``D``, ``(B, C, h, w)``."""
        return self.normalize(self.describe(images))

    @torch.no_grad()
    def fit_statistics(self, descriptors: Iterable[Tensor]) -> None:
        """Set mean and standard deviation per channel.

        Args:
            descriptors (Iterable[Tensor]): Batches of descriptors of normal images from :meth:`describe`.
        """
        count = 0
        total = torch.zeros(self.channels, dtype=torch.float64, device=self.mean.device)
        squares = torch.zeros_like(total)
        for batch in descriptors:
            values = batch.to(torch.float64)
            count += values[:, 0].numel()
            total += values.sum((0, 2, 3))
            squares += values.square().sum((0, 2, 3))
        mean = total / count
        # a channel that never changes on the normals stays finite, and shows when it does change
        variance = (squares / count - mean.square()).clamp_min(1e-12)
        self.mean.copy_(mean.view_as(self.mean))
        self.std.copy_(variance.sqrt().clamp_min(1e-4 * variance.mean().sqrt()).view_as(self.std))

    def train(self, mode: bool = True) -> "PatchDescriptor":
        """Stay in evaluation mode: the network is frozen, its batch statistics too."""
        del mode
        return super().train(mode=False)


def _build(name: str, layers: Sequence[str | int] | None) -> nn.Module:
    if not name.startswith("timm/"):
        networks = {"pdn_small": SmallPatchDescriptionNetwork, "pdn_medium": MediumPatchDescriptionNetwork}
        if name not in networks:
            msg = f"Unknown descriptor {name!r}; choose 'pdn_small', 'pdn_medium' or 'timm/<backbone>'."
            raise ValueError(msg)
        if layers:
            msg = f"descriptor_args.layers chooses stages of a timm backbone, but descriptor={name!r} has one output."
            raise ValueError(msg)
        return networks[name](PDN_CHANNELS)
    backbone = name.removeprefix("timm/")
    if not backbone.startswith("local-dir:") and not timm.is_model(backbone):
        msg = f"timm knows no backbone {backbone!r}; `timm.list_models()` names them."
        raise ValueError(msg)
    if not layers and backbone == BUNDLED_BACKBONE:
        layers = BUNDLED_LAYERS
    if not layers:
        msg = f"descriptor={name!r} needs descriptor_args.layers, names of stages as TimmFeatureExtractor has them."
        raise ValueError(msg)
    extractor = TimmFeatureExtractor(backbone, layers=list(layers), pre_trained=False)
    if len(extractor.layers) != len(layers):
        missing = sorted({str(layer) for layer in layers} - {str(layer) for layer in extractor.layers})
        known = [info["module"] for info in extractor.feature_extractor.feature_info.info]
        msg = f"{backbone} has no stages {', '.join(missing)}; its descriptor_args.layers are among {', '.join(known)}."
        raise ValueError(msg)
    network = extractor.feature_extractor
    if isinstance(network, timm.models.efficientnet.EfficientNetFeatures):
        # timm runs all stages of this family, also those behind the last one that is read
        last = max(int(network.feature_info.info[i]["module"].rsplit(".", 1)[-1]) for i in extractor.idx)
        network.blocks = network.blocks[: last + 1]
    return extractor


def _backbone_state_dict(backbone: str, extractor: TimmFeatureExtractor, source: str) -> dict[str, Tensor]:
    """Pre-trained weights for the part of a timm backbone that the extractor keeps."""
    network = extractor.feature_extractor
    if source == "bundled":
        if backbone != BUNDLED_BACKBONE:
            msg = (
                f"No weights of {backbone} are bundled, only those of {BUNDLED_BACKBONE}; give descriptor_args.weights="
                "'official' for timm's download or the path of a local file."
            )
            raise WeightsError(msg)
        state = load_backbone_state_dict()
    else:
        # timm's own loading knows each family's file formats; `file` takes the place of the download
        options: dict[str, Any] = (
            {"dynamic_img_size": True}
            if hasattr(extractor, "patch_size")
            else {"features_only": True, "exportable": True, "out_indices": extractor.idx}
        )
        if source != "official":
            options["pretrained_cfg_overlay"] = {"file": source}
        try:
            state = timm.create_model(backbone, pretrained=True, **options).state_dict()
        except Exception as error:
            cure = "give descriptor_args.weights the path of a local file or a backbone 'timm/local-dir:<folder>'"
            msg = f"The weights of {backbone} could not be loaded from {source!r} ({error}); {cure}."
            raise WeightsError(msg) from error
    wanted = network.state_dict().keys()
    if missing := sorted(wanted - state.keys()):
        msg = f"The weights {source!r} for {backbone} lack {len(missing)} tensors, the first of them {missing[0]}."
        raise WeightsError(msg)
    return {name: state[name] for name in wanted}
