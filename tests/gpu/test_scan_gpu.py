# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The scan and the ViM encoder on a GPU: parity with the float64 loop, forward and backward, and autocast."""

import pytest
import torch
from torch import Tensor

from anomalib_vmpfd.nn.vision_mamba import VisionMambaEncoder
from anomalib_vmpfd.ops.selective_scan import cuda, selective_scan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
needs_kernel = pytest.mark.skipif(
    not (torch.cuda.is_available() and cuda.is_available()),
    reason="needs mamba-ssm built with its selective_scan_cuda extension",
)
BACKENDS = ["chunked", "blocked", pytest.param("cuda", marks=needs_kernel)]


def make_inputs(groups: int = 2, offset: float = -0.5, length: int = 150) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape, matrix = (2, 32, length), (2, groups, 16, length)
    inputs = {name: torch.randn(shape, generator=generator) for name in ("u", "delta", "z")}
    inputs |= {name: torch.randn(matrix, generator=generator) for name in ("B", "C")}
    inputs["A"] = -torch.arange(1.0, 17.0).repeat(32, 1)
    inputs["D"], inputs["delta_bias"] = torch.randn(32, generator=generator), torch.full((32,), offset)
    return {name: tensor.cuda() for name, tensor in inputs.items()}


def run(inputs: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
    y = selective_scan(**leaves, delta_softplus=True, backend=backend)
    grads = torch.autograd.grad(y.square().sum(), list(leaves.values()))
    return {"y": y.detach(), **dict(zip(leaves, grads, strict=True))}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("offset", [-4.6, -0.5, 8.0])
def test_values_and_gradients_match_the_float64_loop(backend: str, groups: int, offset: float) -> None:
    inputs = make_inputs(groups, offset)
    exact = run({name: tensor.double() for name, tensor in inputs.items()}, "reference")
    for name, value in run(inputs, backend).items():
        # mamba-ssm's kernel uses fast exponentials
        assert (value - exact[name]).abs().max() < 1e-4 * exact[name].abs().max(), name


@needs_kernel
def test_automatic_choice_on_a_gpu_is_the_kernel() -> None:
    inputs = make_inputs()
    automatic = selective_scan(**inputs, delta_softplus=True)
    assert torch.equal(automatic, selective_scan(**inputs, delta_softplus=True, backend="cuda"))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_encoder_trains_under_autocast(backend: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    encoder = VisionMambaEncoder((64, 64), patch_size=8, dim=48, depth=2, backend=backend).cuda()
    images = torch.randn(4, 3, 64, 64, device="cuda")
    exact = encoder(images)
    with torch.autocast("cuda", dtype):
        features = encoder(images)
    assert features.dtype == torch.float32
    assert (features - exact).abs().mean() < 0.02 * exact.abs().mean()
    features.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


def test_cpu_and_gpu_agree() -> None:
    torch.manual_seed(0)
    encoder = VisionMambaEncoder((64, 64), patch_size=8, dim=48, depth=2)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = encoder(images)
        result = encoder.cuda()(images.cuda()).cpu()
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4)
