# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""anomalib's models as they are measured: random weights and drawn banks, which change nothing of what is computed.

python perf/peers.py RAD     builds it and answers one image: what memory.py takes time and memory of
"""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from unittest.mock import patch

import timm
import torch
from anomalib.models import AnomalibModule, Dinomaly, EfficientAd, MHPatchcore, Patchcore, Rad, Supersimplenet
from torch.nn import functional as F  # noqa: N812

SIDE = 256
TRAINING_IMAGES = 320  # as many as screw has
PATCHCORE_BANK = (32_768, 1_536)  # 10 % of 320 images of 32 x 32 cells; channels of layer2 and layer3


def efficient_ad() -> EfficientAd:
    """EfficientAd-S that takes the same way as a trained one: its statistics and quantiles are set."""
    model = EfficientAd()
    model.model.mean_std.update({"mean": torch.full((1, 384, 1, 1), 0.1), "std": torch.ones(1, 384, 1, 1)})
    model.model.quantiles.update({name: torch.tensor(float(name.startswith("qb"))) for name in model.model.quantiles})
    return model


def patchcore() -> Patchcore:
    """Patchcore with anomalib's defaults and a drawn bank."""
    model = Patchcore(pre_trained=False)
    model.model.memory_bank = torch.rand(PATCHCORE_BANK)
    return model


def mh_patchcore() -> MHPatchcore:
    """Multi-head Patchcore, its three passes over a few random images."""
    model = MHPatchcore(pre_trained=False).train()
    images = model.pre_processor(torch.rand(8, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)))
    for _ in range(3):
        with torch.no_grad():
            model.training_step(SimpleNamespace(image=images))
        model.fit()
    return model


def rad() -> Rad:
    """RAD with banks of as many images as screw has."""
    model = Rad(pre_trained=False)
    network = model.model
    with torch.no_grad():
        network.train()(model.pre_processor(torch.rand(1, 3, SIDE, SIDE)))
        network.build_memory_bank()
    layers, positions, _, channels = network.patch_banks.shape
    network.cls_banks = F.normalize(torch.randn(layers, TRAINING_IMAGES, channels), dim=-1)
    network.patch_banks = F.normalize(torch.randn(layers, positions, TRAINING_IMAGES, channels), dim=-1)
    return model


BUILDERS: dict[str, Callable[[], AnomalibModule]] = {
    "EfficientAd-S": efficient_ad,
    "Patchcore": patchcore,
    "MHPatchcore": mh_patchcore,
    "RAD": rad,
    "SuperSimpleNet": Supersimplenet,
    "Dinomaly-S": lambda: Dinomaly(encoder_name="vit_small_patch14_reg4_dinov2"),
}


def build(name: str) -> AnomalibModule:
    """A model ready to judge images, on which no gradient is taken."""
    create = timm.create_model

    def without_weights(*args: object, **arguments: object) -> torch.nn.Module:
        return create(*args, **(arguments | {"pretrained": False}))

    with patch.object(timm, "create_model", without_weights):
        return BUILDERS[name]().eval().requires_grad_(requires_grad=False)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else torch.get_num_threads())
    with torch.inference_mode():
        build(sys.argv[1])(torch.rand(1, 3, SIDE, SIDE))
