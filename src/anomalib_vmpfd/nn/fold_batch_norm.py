# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Batch norms of a frozen network, folded into the convolutions before them."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


@torch.no_grad()
def fold_batch_norms(network: nn.Module, example: Tensor) -> nn.Module:
    """Copy a network without the batch norms whose input is the output of a convolution and of nothing else.

    Works for any network of modules: which convolution a batch norm follows is seen in one pass. timm's batch norms
    carry their activation, which stays. What is folded depends on the architecture alone, not on weights or on the
    precision around, so that the state of one folded network fits another.

    Args:
        network (nn.Module): The network, in evaluation mode.
        example (Tensor): An input.

    Returns:
        nn.Module: The copy; the network itself where a convolution feeds more than its batch norm, or there is none.
    """
    if not _batch_norms(network):
        # a PDN takes seconds to be probed in float64
        return network
    with torch.autocast(example.device.type, enabled=False):
        return _folded(network, example) if _can_be_folded(network, example) else network


def _can_be_folded(network: nn.Module, example: Tensor) -> bool:
    # in float64, which neither autocast nor TF32 touches: folded or not is then no matter of rounding
    probe = copy.deepcopy(network).double()
    # statistics of a new network change nothing, and would hide what must not be folded
    for norm in _batch_norms(probe):
        channels = len(norm.running_mean)
        norm.running_mean.copy_(torch.linspace(-0.5, 0.5, channels))
        norm.running_var.copy_(torch.linspace(0.5, 1.5, channels))
    noise = torch.rand(example.shape, generator=torch.Generator().manual_seed(0)).to(example.device, torch.float64)
    return _agree(probe(noise), _folded(probe, noise)(noise))


def _batch_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def _folded(network: nn.Module, example: Tensor) -> nn.Module:
    folded = copy.deepcopy(network)
    convolutions: dict[int, tuple[nn.Module, Tensor]] = {}  # by output; keeps the outputs, or their ids would return
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def convolved(module: nn.Module, _: tuple[Tensor], output: Tensor) -> None:
        convolutions[id(output)] = (module, output)

    def normed(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if id(inputs[0]) in convolutions:
            pairs.append((convolutions[id(inputs[0])][0], module))

    hooks = [m.register_forward_hook(convolved) for m in folded.modules() if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(normed) for m in _batch_norms(folded)]
    folded(example)
    for hook in hooks:
        hook.remove()

    activations: dict[nn.Module, nn.Module] = {}
    for conv, norm in pairs:
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        activations[norm] = getattr(norm, "act", nn.Identity())
    for parent in list(folded.modules()):
        for name, child in parent.named_children():
            if child in activations:
                setattr(parent, name, activations[child])
    return folded.requires_grad_(requires_grad=False)


def _agree(expected: Any, seen: Any) -> bool:  # noqa: ANN401
    if isinstance(expected, dict):
        return all(_agree(value, seen[name]) for name, value in expected.items())
    if isinstance(expected, list | tuple):
        return all(_agree(*values) for values in zip(expected, seen, strict=True))
    scale = expected.abs().amax().clamp_min(1e-6)
    return bool((expected - seen).abs().amax() <= 1e-6 * scale)
