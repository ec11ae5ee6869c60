# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Every backend of the selective scan against the float64 loop."""

import shutil
from pathlib import Path

import openvino
import pytest
import torch
from torch import Tensor, nn

from anomalib_vmpfd.ops.selective_scan import scan_op as scan_op_module
from anomalib_vmpfd.ops.selective_scan import selective_scan

pytestmark = pytest.mark.numeric

# step sizes before bias and softplus: as initialised; learnt; strong decay, where delta * A goes below -200 and
# anything that divides by products of decays breaks down
REGIMES = {"init": (-4.6, 0.5), "mid": (-0.5, 1.0), "large": (8.0, 4.0)}
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="the C kernel needs a C compiler"
)
BACKENDS = ["chunked", "blocked", pytest.param("c", marks=needs_compiler)]


def make_inputs(
    regime: str = "mid",
    groups: int | None = 2,
    optional: bool = True,
    batch: int = 2,
    channels: int = 12,
    length: int = 37,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Random inputs of the scan; ``groups=None`` is the three-dimensional form of B and C."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    offset, spread = REGIMES[regime]
    matrix = (batch, 16, length) if groups is None else (batch, groups, 16, length)
    inputs = {
        "u": randn(batch, channels, length),
        "delta": spread * randn(batch, channels, length),
        "A": -torch.arange(1, 17).expand(channels, 16).to(dtype) * torch.exp(0.1 * randn(channels, 16)),
        "B": randn(*matrix),
        "C": randn(*matrix),
        "delta_bias": offset + 0.5 * randn(channels),
    }
    if optional:
        inputs |= {"D": randn(channels), "z": randn(batch, channels, length)}
    return inputs


def projection(y: Tensor) -> Tensor:
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)


def run(inputs: dict[str, Tensor], backend: str, **options: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Output and gradients of a fixed random projection of it."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in inputs.items()}
    y = selective_scan(**leaves, **{"delta_softplus": True, **options}, backend=backend)
    grads = torch.autograd.grad((y * projection(y)).sum(), list(leaves.values()), materialize_grads=True)
    return y.detach(), dict(zip(leaves, grads, strict=True))


def assert_close_to_oracle(inputs: dict[str, Tensor], backend: str, **options: bool) -> None:
    exact, exact_grads = run({name: tensor.double() for name, tensor in inputs.items()}, "reference", **options)
    y, grads = run(inputs, backend, **options)
    for name, value, target in [("y", y, exact), *((name, grads[name], exact_grads[name]) for name in grads)]:
        error = (value.double() - target).abs().max().item()
        assert error <= 2e-6 * target.abs().max().item(), f"{name}: {error:.1e}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("groups", [None, 1, 2])
@pytest.mark.parametrize("regime", REGIMES)
def test_values_and_gradients_match_the_float64_loop(backend: str, regime: str, groups: int | None) -> None:
    assert_close_to_oracle(make_inputs(regime, groups), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length", [1, 2, 16, 17, 64])
def test_every_length_is_exact_also_without_the_optional_inputs(backend: str, length: int) -> None:
    inputs = make_inputs(optional=False, length=length)
    del inputs["delta_bias"]
    assert_close_to_oracle(inputs, backend)
    inputs["delta"] = inputs["delta"].abs()
    assert_close_to_oracle(inputs, backend, delta_softplus=False)


def test_torch_scan_operator_matches_the_float64_loop() -> None:
    # one shape: eager calls of the operator compile first
    inputs = make_inputs("large")
    exact = selective_scan(**{k: v.double() for k, v in inputs.items()}, delta_softplus=True, backend="reference")
    with torch.no_grad():
        y = selective_scan(**inputs, delta_softplus=True, backend="scan_op")
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=2e-6 * exact.abs().max().item())


class Scan(nn.Module):
    """The selective scan of exports as a module of one input, the rest being constants."""

    def __init__(self, inputs: dict[str, Tensor]) -> None:
        super().__init__()
        self.inputs = {name: tensor for name, tensor in inputs.items() if name != "u"}

    def forward(self, u: Tensor) -> Tensor:
        return selective_scan(u, **self.inputs, delta_softplus=True, backend="scan_op")


def test_exported_scan_matches_the_float64_loop_whether_openvino_knows_the_batch_or_not(tmp_path: Path) -> None:
    """Knowing it, it computed a state in the place of its input, and went on with the next input for the state."""
    inputs = make_inputs("mid")
    doubles = {name: tensor.double() for name, tensor in inputs.items()}
    exact = selective_scan(**doubles, delta_softplus=True, backend="reference")
    torch.onnx.export(Scan(inputs), (inputs["u"],), tmp_path / "scan.onnx", opset_version=18, dynamo=True)
    network = openvino.Core().read_model(tmp_path / "scan.onnx")
    for shape in (list(inputs["u"].shape), [-1, *inputs["u"].shape[1:]]):
        network.reshape(shape)
        compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        (y,) = compiled(inputs["u"].numpy()).values()
        torch.testing.assert_close(torch.from_numpy(y).double(), exact, rtol=0, atol=1e-5 * exact.abs().max().item())


def test_export_backend_survives_a_torch_without_the_scan_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_op_module, "_scan", None)
    assert_close_to_oracle(make_inputs("mid"), "scan_op")


def test_oracle_agrees_with_the_closed_form_of_a_constant_input() -> None:
    # h_t = a h_{t-1} + b with constant a and b is a geometric series: h_t = b (1 - a^(t+1)) / (1 - a)
    ones = torch.ones(1, 1, 20, dtype=torch.float64)
    rate, step = torch.tensor([[-0.7]], dtype=torch.float64), 0.3 * ones
    y = selective_scan(2 * ones, step, rate, 5 * ones, 11 * ones, backend="reference")
    decay = torch.exp(0.3 * rate[0, 0])
    expected = 11 * (0.3 * 5 * 2) * (1 - decay ** torch.arange(1, 21)) / (1 - decay)
    torch.testing.assert_close(y[0, 0], expected)


def test_chunked_backward_passes_gradcheck_over_several_chunks() -> None:
    inputs = make_inputs("mid", batch=1, channels=4, length=35, dtype=torch.float64)
    leaves = [tensor.requires_grad_() for tensor in inputs.values()]

    def scan(*tensors: Tensor) -> Tensor:
        named = dict(zip(inputs, tensors, strict=True))
        return selective_scan(**named, delta_softplus=True, backend="chunked")

    assert torch.autograd.gradcheck(scan, leaves, fast_mode=True)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_autocast_changes_neither_values_nor_gradients(backend: str) -> None:
    inputs = make_inputs("mid", length=64)
    y, grads = run(inputs, backend)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
    with torch.autocast("cpu", torch.bfloat16):
        cast_y = selective_scan(**leaves, delta_softplus=True, backend=backend)
    (cast_y * projection(y)).sum().backward()
    torch.testing.assert_close(cast_y.detach(), y, rtol=0, atol=0)
    for name, grad in grads.items():
        torch.testing.assert_close(leaves[name].grad, grad, rtol=0, atol=0)


def test_chunked_backward_stays_in_float32_inside_autocast() -> None:
    inputs = make_inputs("mid", length=64)
    _, grads = run(inputs, "chunked")
    with torch.autocast("cpu", torch.bfloat16):
        _, cast_grads = run(inputs, "chunked")
    for name, grad in grads.items():
        torch.testing.assert_close(cast_grads[name], grad, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["auto", "reference", *BACKENDS])
def test_half_precision_inputs_lose_only_their_own_rounding(backend: str) -> None:
    inputs = make_inputs("mid", length=64)
    for name in ("u", "delta", "B", "C", "z"):
        inputs[name] = inputs[name].bfloat16()
    y = selective_scan(**inputs, delta_softplus=True, backend=backend)
    exact = selective_scan(**{k: v.double() for k, v in inputs.items()}, delta_softplus=True, backend="reference")
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_non_contiguous_inputs_are_read_correctly(backend: str) -> None:
    inputs = make_inputs("mid", length=48)
    strided = {
        name: x.transpose(-1, -2).contiguous().transpose(-1, -2) if x.ndim > 2 else x for name, x in inputs.items()
    }
    torch.testing.assert_close(
        selective_scan(**strided, delta_softplus=True, backend=backend),
        selective_scan(**inputs, delta_softplus=True, backend="reference"),
    )


def test_jit_trace_of_the_automatic_backend_takes_another_batch() -> None:
    inputs, other = make_inputs("mid", length=20), make_inputs("mid", length=20, batch=5, seed=3)
    example, arguments = ([x["u"], x["delta"].abs(), x["A"], x["B"], x["C"]] for x in (inputs, other))
    traced = torch.jit.trace(selective_scan, example)
    torch.testing.assert_close(traced(*arguments), selective_scan(*arguments, backend="reference"))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("u", (2, 12), "u must be"),
        ("delta", (2, 12, 36), "delta must have shape"),
        ("A", (11, 16), "A must be"),
        ("B", (2, 2, 8, 37), "B must be"),
        ("C", (2, 1, 16, 37), "C must be"),
        ("D", (24,), "D must have shape"),
        ("z", (1, 12, 37), "z must have shape"),
        ("delta_bias", (1, 12), "delta_bias must have shape"),
    ],
)
def test_wrong_shape_is_named(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        selective_scan(**(make_inputs() | {name: torch.zeros(shape)}))


def test_wrong_groups_and_backends_are_named() -> None:
    with pytest.raises(ValueError, match="12 channels do not divide into the 5 groups"):
        selective_scan(**make_inputs(groups=5))
    with pytest.raises(ValueError, match="Unknown scan backend 'mamba'; choose one of auto, "):
        selective_scan(**make_inputs(), backend="mamba")
    with pytest.raises(RuntimeError, match="needs tensors on a GPU"):
        selective_scan(**make_inputs(), backend="cuda")
