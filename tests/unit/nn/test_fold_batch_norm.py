# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

import pytest
import timm
import torch
from torch import nn

from anomalib_vmpfd.nn.fold_batch_norm import fold_batch_norms
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor

pytestmark = pytest.mark.numeric


def disturb(module: nn.Module) -> None:
    """Batch norms as after a training; new ones would change nothing."""
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.running_mean, -0.2, 0.2),
                (norm.running_var, 0.5, 2.0),
                (norm.weight.data, 0.5, 1.5),
                (norm.bias.data, -0.3, 0.3),
            ):
                tensor.uniform_(low, high, generator=generator)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite2", "resnet18", "mobilenetv3_small_050"])
def test_the_folded_network_computes_the_same_without_batch_norms(name):
    network = timm.create_model(name, pretrained=False).eval().requires_grad_(requires_grad=False)
    disturb(network)
    images = torch.randn(2, 3, 96, 96)
    folded = fold_batch_norms(network, images[:1])
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(folded(images), network(images), rtol=1e-4, atol=1e-4)


def test_a_convolution_that_feeds_more_than_its_batch_norm_is_left_alone():
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            return x + self.norm(x)

    network = Fork().eval()
    disturb(network)
    assert fold_batch_norms(network, torch.rand(1, 3, 8, 8)) is network


def test_a_descriptor_computes_what_timm_computes_from_the_same_file(tmp_path):
    network = timm.create_model("resnet18", pretrained=False).eval()
    disturb(network)
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    descriptor = PatchDescriptor("timm/resnet18", (64, 64), ["layer2"], weights=str(tmp_path / "resnet18.pth"))
    descriptor.load_weights()
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(network.default_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = network.forward_intermediates((images - mean) / std, intermediates_only=True)[2]
    (seen,) = descriptor.describe(images)
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-4)
    assert not [m for m in descriptor.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", ["tf_efficientnet_lite2", "resnet18"])
def test_autocast_around_the_building_changes_nothing(name):
    """Or the state of one model would not fit another, built in another precision."""
    network = timm.create_model(name, pretrained=False).eval().requires_grad_(requires_grad=False)
    disturb(network)
    expected = fold_batch_norms(network, torch.zeros(1, 3, 96, 96)).state_dict()
    with torch.autocast("cpu", torch.bfloat16):
        seen = fold_batch_norms(network, torch.zeros(1, 3, 96, 96)).state_dict()
    torch.testing.assert_close(seen, expected, rtol=0, atol=0)


def test_a_network_without_batch_norms_is_not_even_run():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    network.register_forward_hook(lambda *_: pytest.fail("nothing is to be folded"))
    assert fold_batch_norms(network, torch.zeros(1, 3, 8, 8)) is network
