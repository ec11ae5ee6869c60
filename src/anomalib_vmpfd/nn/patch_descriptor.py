# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Frozen patch descriptors: EfficientAD's PDN or the stages of a timm backbone, normalised on the normal images."""

from collections.abc import Iterable, Sequence

import torch
from anomalib.models.components import TimmFeatureExtractor
from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork
from torch import Tensor, nn

from anomalib_vmpfd.weights import load_pdn_state_dict

from .descriptor_network import BUNDLED_BACKBONE, backbone_state_dict, build_network, is_vit
from .fold_batch_norm import fold_batch_norms
from .grid import Axis, Grid, Resample
from .image_size import check_image_size
from .precision import full_convolutions

PDN_STRIDE = 4
PDN_RECEPTIVE_FIELD = 33
PROBE_SIZE = (64, 64)  # of the picture by which it is seen which batch norms can be folded
# levels of the bundled backbone, finest first
BUNDLED_LAYERS = (("blocks.1", "blocks.2"), ("blocks.2", "blocks.4"))
# Centre of the effective receptive field of the first cell, in pixels: the centre of mass of squared gradients. The
# theoretical receptive field of the padded convolutions would put the cells up to five pixels too far on.
BUNDLED_CENTRES = {"blocks.1": 2.5, "blocks.2": 3.5, "blocks.4": 10.0}

Layers = Sequence[str | int | Sequence[str | int]]


class DescriptorLevel(nn.Module):
    """Stages of a network on one grid, stacked and standardised per channel on the normal images.

    Args:
        stages (Sequence[int]): Which outputs of the network.
        channels (int): Their channels in all.
        grids (Sequence[Grid]): Where their cells lie.
        grid (int | None): Cells along the shorter side of the image; ``None`` takes the grid of the finest stage, to
            which the coarser ones are interpolated.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, stages: Sequence[int], channels: int, grids: Sequence[Grid], grid: int | None = None) -> None:
        super().__init__()
        self.stages = tuple(stages)
        self.channels = channels
        self.grid = max(grids, key=lambda each: each.shape)
        if grid is not None:
            ratio = min(self.grid.shape) / grid
            height, width = (round(count / ratio) for count in self.grid.shape)
            self.grid = self.grid.pooled((height, width))
        self.resample = nn.ModuleList(Resample(each, self.grid) for each in grids)
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))

    def stack(self, outputs: Sequence[Tensor]) -> Tensor:
        """Stack outputs of the network, ``(B, C_i, h_i, w_i)`` each, on the grid of this level, ``(B, C, h, w)``."""
        maps = [outputs[stage] for stage in self.stages]
        if len(maps) == 1 and tuple(maps[0].shape[-2:]) == self.grid.shape:
            return maps[0].contiguous()
        return torch.cat([resample(m.float()) for m, resample in zip(maps, self.resample, strict=True)], dim=1)

    def forward(self, descriptors: Tensor) -> Tensor:
        """Standardise descriptors ``(B, C, h, w)`` per channel."""
        return (descriptors.to(self.mean.dtype) - self.mean) / self.std


class PatchDescriptor(nn.Module):
    """Describe every patch of an image by a frozen pre-trained network, ``f_PDN`` of equation 10.

    The weights arrive through :meth:`load_weights` and the statistics through :meth:`fit_statistics`, both once, at
    the start of a training; a checkpoint carries them, so that loading one needs neither.

    Args:
        name (str): ``"pdn_small"``, ``"pdn_medium"`` or ``"timm/<backbone>"``.
        image_size (tuple[int, int]): Height and width of the images in pixels.
        layers (Layers | None): Stages of a timm backbone as anomalib's ``TimmFeatureExtractor`` names them, of a ViT
            its blocks, whose outputs pass its final norm: a list of them, stacked on one grid, or a list of such lists,
            a level each, finest first. ``None`` for a PDN, which has one output, and for the stages of the bundled
            backbone that describe normals best.
        grid (int | None): Cells along the shorter side of the image, where there is one level; ``None`` takes the grid
            of the finest stage.
        weights (str): Pre-trained weights: ``"bundled"`` (shipped with this package), ``"official"`` (the publisher's
            download, that is anomalib's EfficientAD teacher or timm's pre-trained weights) or the path of a file.

    Attributes:
        levels (nn.ModuleList): A :class:`DescriptorLevel` each, finest first; the last one is the descriptor that an
            encoder and a predicted mixture read.

    Raises:
        ValueError: If the name is unknown, the layers do not fit it, the image is smaller than the receptive field, or
            its sides are no multiples of a ViT's patches.

    Example:
        >>> descriptor = PatchDescriptor("pdn_small", (256, 256))
        >>> descriptor(torch.rand(1, 3, 256, 256))[-1].shape
        torch.Size([1, 384, 56, 56])
    """

    def __init__(
        self,
        name: str,
        image_size: tuple[int, int],
        layers: Layers | None = None,
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
        self._image_size = tuple(image_size)
        if not layers and name == f"timm/{BUNDLED_BACKBONE}":
            layers = BUNDLED_LAYERS
        by_level = _by_level(layers)
        if grid is not None and len(by_level) > 1:
            msg = f"grid={grid} is of one level, but there are {len(by_level)}; give layers as one list."
            raise ValueError(msg)
        self._stages = list(dict.fromkeys(stage for level in by_level for stage in level))
        network = build_network(name, self._stages)
        if isinstance(network, TimmFeatureExtractor) and is_vit(network):
            check_image_size(image_size, network.patch_size)
        self.network = self._frozen(network)
        with torch.no_grad():
            outputs = self._outputs(torch.zeros(1, 3, *image_size))
        names = self._stages or [""]
        grids = [self._grid((m.shape[-2], m.shape[-1]), stage) for m, stage in zip(outputs, names, strict=True)]
        self.levels = nn.ModuleList()
        for level in by_level:
            stages = [names.index(stage) for stage in level] or [0]
            channels = sum(outputs[stage].shape[1] for stage in stages)
            self.levels.append(DescriptorLevel(stages, channels, [grids[stage] for stage in stages], grid))

    @property
    def channels(self) -> int:
        """Number of channels ``C`` of the last level."""
        return self.levels[-1].channels

    @property
    def grid(self) -> Grid:
        """Where the cells of the last level lie in the image."""
        return self.levels[-1].grid

    @property
    def licence(self) -> str:
        """Licence of the pre-trained weights, as far as it is known."""
        if self.weights == "bundled":
            return "Apache-2.0"
        config = getattr(getattr(self.network, "feature_extractor", None), "default_cfg", {})
        return (self.weights == "official" and config.get("license")) or f"not known, weights from {self.weights}"

    def _frozen(self, network: nn.Module) -> nn.Module:
        # what light convolutions lose time with on a CPU: batch norms, and the default memory layout
        frozen = network.eval().requires_grad_(requires_grad=False)
        config = getattr(getattr(network, "feature_extractor", None), "default_cfg", {})
        # what can be folded has nothing to do with the size, and every start of a program waits for the answer
        size = self._image_size if config.get("fixed_input_size") else PROBE_SIZE
        return fold_batch_norms(frozen, torch.zeros(1, 3, *size)).to(memory_format=torch.channels_last)

    def _grid(self, size: tuple[int, int], layer: str | int) -> Grid:
        """Where the cells of one output lie."""
        if not isinstance(self.network, TimmFeatureExtractor):
            # without padding, cell i of a PDN sees the pixels 4 i .. 4 i + 32
            return Grid(*(Axis(cells, PDN_STRIDE, (PDN_RECEPTIVE_FIELD - 1) / 2) for cells in size))
        strides = [pixels / cells for pixels, cells in zip(self._image_size, size, strict=True)]
        centres = BUNDLED_CENTRES if self.name == f"timm/{BUNDLED_BACKBONE}" else {}
        firsts = [centres.get(str(layer), (stride - 1) / 2) for stride in strides]
        return Grid(*(Axis(*each) for each in zip(size, strides, firsts, strict=True)))

    def load_weights(self) -> None:
        """Load the pre-trained weights.

        Raises:
            WeightsError: If the weights cannot be had or do not fit the network.
        """
        if isinstance(self.network, TimmFeatureExtractor):
            network = build_network(self.name, self._stages)
            backbone = self.name.removeprefix("timm/")
            network.feature_extractor.load_state_dict(backbone_state_dict(backbone, network, self.weights))
            self.network.load_state_dict(self._frozen(network).state_dict())
        else:
            small = isinstance(self.network, SmallPatchDescriptionNetwork)
            self.network.load_state_dict(load_pdn_state_dict(self.weights, "small" if small else "medium"))

    def _outputs(self, images: Tensor) -> list[Tensor]:
        images = images.contiguous(memory_format=torch.channels_last)
        if not isinstance(self.network, TimmFeatureExtractor):
            # the PDN normalises its input itself
            return [self.network(images)]
        config = self.network.feature_extractor.default_cfg
        mean, std = (images.new_tensor(config[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
        return list(self.network((images - mean) / std).values())

    @torch.no_grad()
    @full_convolutions()
    def describe(self, images: Tensor) -> tuple[Tensor, ...]:
        """Describe images without normalisation.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            tuple[Tensor, ...]: Descriptors of each level, ``(B, C, h, w)``.
        """
        outputs = self._outputs(images)
        return tuple(level.stack(outputs) for level in self.levels)

    def normalize(self, descriptors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Standardise the descriptors of each level per channel on the normals."""
        return tuple(level(each) for level, each in zip(self.levels, descriptors, strict=True))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Describe images in [0, 1] of shape ``(B, 3, H, W)`` by normalised descriptors ``D`` of each level."""
        return self.normalize(self.describe(images))

    @torch.no_grad()
    def fit_statistics(self, descriptors: Iterable[Sequence[Tensor]]) -> None:
        """Set mean and standard deviation of each level and channel.

        Args:
            descriptors (Iterable[Sequence[Tensor]]): Batches of descriptors of normal images from :meth:`describe`.
        """
        count = [0] * len(self.levels)
        total = [torch.zeros(level.channels, dtype=torch.float64, device=level.mean.device) for level in self.levels]
        squares = [torch.zeros_like(each) for each in total]
        for batch in descriptors:
            for index, each in enumerate(batch):
                values = each.to(torch.float64)
                count[index] += values[:, 0].numel()
                total[index] += values.sum((0, 2, 3))
                squares[index] += values.square().sum((0, 2, 3))
        for level, n, first, second in zip(self.levels, count, total, squares, strict=True):
            mean = first / n
            # a channel that never changes on the normals stays finite, and shows when it does change
            variance = (second / n - mean.square()).clamp_min(1e-12)
            level.mean.copy_(mean.view_as(level.mean))
            level.std.copy_(variance.sqrt().clamp_min(1e-4 * variance.mean().sqrt()).view_as(level.std))

    def train(self, mode: bool = True) -> "PatchDescriptor":
        """Stay in evaluation mode: the network is frozen, its batch statistics too."""
        del mode
        return super().train(mode=False)


def _by_level(layers: Layers | None) -> list[list[str | int]]:
    """Stages of each level; a flat list is one level."""
    flat = [each for each in layers or () if isinstance(each, (str, int))]
    levels = [list(each) for each in layers or () if not isinstance(each, (str, int))]
    if flat and levels:
        msg = f"layers={list(layers or ())} mixes stages and lists of stages; give one kind."
        raise ValueError(msg)
    return levels or [flat]
