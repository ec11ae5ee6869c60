# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Descriptors from ViTs of random weights: the tokens of timm's own forward, each where its patch is."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor

# DINOv2: patches of 14 and registers; DINOv3: rotary positions
VITS = {"test_vit": 16, "vit_small_patch14_reg4_dinov2": 14, "vit_small_patch16_dinov3": 16}


@pytest.fixture(params=VITS, scope="module")
def vit(request) -> tuple[torch.nn.Module, PatchDescriptor, torch.Tensor]:
    """timm's whole network, the descriptor with its weights, and images that are not square."""
    size = 4 * VITS[request.param], 6 * VITS[request.param]
    torch.manual_seed(0)
    whole = timm.create_model(request.param, dynamic_img_size=True).eval()
    descriptor = PatchDescriptor(f"timm/{request.param}", size, ["blocks.0", "blocks.2"])
    kept = descriptor.network.feature_extractor
    kept.load_state_dict({name: whole.state_dict()[name] for name in kept.state_dict()})
    return whole, descriptor, torch.rand(2, 3, *size)


def test_cells_are_the_patch_tokens_of_timms_own_forward(vit):
    whole, descriptor, images = vit
    mean, std = (torch.tensor(whole.default_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        tokens = whole.forward_intermediates(
            (images - mean) / std, indices=[0, 2], norm=True, output_fmt="NLC", intermediates_only=True
        )
    (seen,) = descriptor.describe(images)
    assert seen.shape[-2:] == (4, 6)
    torch.testing.assert_close(seen.flatten(2).mT, torch.cat(tokens, 2), rtol=1e-4, atol=1e-4)


def test_each_cell_lies_at_its_patch(vit):
    _, descriptor, images = vit
    patch = VITS[descriptor.name.removeprefix("timm/")]
    assert (descriptor.grid.rows.stride, descriptor.grid.rows.first) == (patch, (patch - 1) / 2)
    changed = images[:1].clone()
    changed[:, :, 2 * patch : 3 * patch, 5 * patch :] = 0
    moved = (descriptor.describe(changed)[0] - descriptor.describe(images[:1])[0]).square().sum(1)
    assert divmod(int(moved.argmax()), 6) == (2, 5)


def test_blocks_that_nothing_reads_are_left_out(vit):
    whole, descriptor, _ = vit
    assert len(descriptor.network.feature_extractor.blocks) == 3 < len(whole.blocks)


def test_weights_come_from_a_file_for_images_of_any_size(tmp_path):
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    images = torch.rand(1, 3, 64, 96)
    seen = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        descriptor = PatchDescriptor("timm/test_vit", (64, 96), ["blocks.1"], weights=str(tmp_path / "vit.safetensors"))
        descriptor.load_weights()
        seen.append(descriptor.describe(images)[0])
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "size", "layers", "message"),
    [
        ("test_vit", (64, 96), ["blocks.6"], r"no stages blocks\.6.*blocks\.0 to blocks\.5"),
        ("vit_small_patch14_dinov2", (64, 84), ["blocks.0"], r"64x84.*patch size 14; use 70x84"),
    ],
    ids=["block", "size"],
)
def test_what_does_not_fit_is_named_with_what_does(name, size, layers, message):
    with pytest.raises(ValueError, match=message):
        PatchDescriptor(f"timm/{name}", size, layers)
