# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Networks of the patch descriptors: how they are built, and where their pre-trained weights come from.

Paper: Batzner et al., "EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies", WACV 2024,
https://arxiv.org/abs/2303.14535. The PDN is anomalib's own.
"""

from collections.abc import Sequence
from typing import Any

import timm
from anomalib.models.components import TimmFeatureExtractor
from anomalib.models.image.efficient_ad.torch_model import (
    MediumPatchDescriptionNetwork,
    SmallPatchDescriptionNetwork,
)
from torch import Tensor, nn

from anomalib_vmpfd.weights import PDN_CHANNELS, WeightsError, load_backbone_state_dict

BUNDLED_BACKBONE = "tf_efficientnet_lite2"


def build_network(name: str, layers: Sequence[str | int] | None) -> nn.Module:
    """Build the network of a descriptor, without pre-trained weights.

    Args:
        name (str): ``"pdn_small"``, ``"pdn_medium"`` or ``"timm/<backbone>"``.
        layers (Sequence[str | int] | None): Stages of a timm backbone, in any order.

    Returns:
        nn.Module: A PDN of anomalib's, or its ``TimmFeatureExtractor``.

    Raises:
        ValueError: If the name or a stage is unknown, or the layers do not fit it.
    """
    if not name.startswith("timm/"):
        networks = {"pdn_small": SmallPatchDescriptionNetwork, "pdn_medium": MediumPatchDescriptionNetwork}
        if name not in networks:
            msg = f"Unknown descriptor {name!r}; choose 'pdn_small', 'pdn_medium' or 'timm/<backbone>'."
            raise ValueError(msg)
        if layers:
            msg = f"layers chooses stages of a timm backbone, but descriptor={name!r} has one output."
            raise ValueError(msg)
        return networks[name](PDN_CHANNELS)
    backbone = name.removeprefix("timm/")
    if not backbone.startswith("local-dir:") and not timm.is_model(backbone):
        msg = f"timm knows no backbone {backbone!r}; `timm.list_models()` names them."
        raise ValueError(msg)
    if not layers:
        msg = f"descriptor={name!r} needs layers, names of stages as TimmFeatureExtractor has them."
        raise ValueError(msg)
    extractor = TimmFeatureExtractor(backbone, layers=list(layers), pre_trained=False)
    if is_vit(extractor):
        return _cut_vit(backbone, extractor)
    if len(extractor.layers) != len(layers):
        missing = sorted({str(layer) for layer in layers} - {str(layer) for layer in extractor.layers})
        known = [info["module"] for info in extractor.feature_extractor.feature_info.info]
        msg = f"{backbone} has no stages {', '.join(missing)}; its layers are among {', '.join(known)}."
        raise ValueError(msg)
    network = extractor.feature_extractor
    if isinstance(network, timm.models.efficientnet.EfficientNetFeatures):
        # timm runs all stages of this family, also those behind the last one that is read
        last = max(int(network.feature_info.info[i]["module"].rsplit(".", 1)[-1]) for i in extractor.idx)
        network.blocks = network.blocks[: last + 1]
    return extractor


def is_vit(extractor: TimmFeatureExtractor) -> bool:
    """Whether the backbone is a ViT: its stages are blocks, all on the grid of its patches, less the other tokens."""
    return hasattr(extractor, "patch_size")


def _cut_vit(backbone: str, extractor: TimmFeatureExtractor) -> TimmFeatureExtractor:
    """Leave out the blocks behind the last one that is read; timm would run them."""
    blocks = extractor.feature_extractor.blocks
    layers = zip(extractor.layers, extractor.idx, strict=True)
    if unknown := [str(layer) for layer, index in layers if not 0 <= index < len(blocks)]:
        known = f"blocks.0 to blocks.{len(blocks) - 1}"
        msg = f"{backbone} has no stages {', '.join(unknown)}; its layers are {known}."
        raise ValueError(msg)
    extractor.feature_extractor.blocks = blocks[: max(extractor.idx) + 1]
    return extractor


def backbone_state_dict(backbone: str, extractor: TimmFeatureExtractor, source: str) -> dict[str, Tensor]:
    """Pre-trained weights for the part of a timm backbone that the extractor keeps."""
    network = extractor.feature_extractor
    if source == "bundled":
        if backbone != BUNDLED_BACKBONE:
            msg = (
                f"No weights of {backbone} are bundled, only those of {BUNDLED_BACKBONE}; give weights="
                "'official' for timm's download or the path of a local file."
            )
            raise WeightsError(msg)
        state = load_backbone_state_dict()
    else:
        # timm's own loading knows each family's file formats; `file` takes the place of the download
        options: dict[str, Any] = (
            {"dynamic_img_size": True}
            if is_vit(extractor)
            else {"features_only": True, "exportable": True, "out_indices": extractor.idx}
        )
        if source != "official":
            options["pretrained_cfg_overlay"] = {"file": source}
        try:
            state = timm.create_model(backbone, pretrained=True, **options).state_dict()
        except Exception as error:
            cure = "give weights the path of a local file or a backbone 'timm/local-dir:<folder>'"
            msg = f"The weights of {backbone} could not be loaded from {source!r} ({error}); {cure}."
            raise WeightsError(msg) from error
    wanted = network.state_dict().keys()
    if missing := sorted(wanted - state.keys()):
        msg = f"The weights {source!r} for {backbone} lack {len(missing)} tensors, the first of them {missing[0]}."
        raise WeightsError(msg)
    return {name: state[name] for name in wanted}
