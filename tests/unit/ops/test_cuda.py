# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The way to mamba-ssm as far as a CPU goes: detection, and the contract of its kernel. Numbers: tests/gpu."""

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from anomalib_vmpfd.ops.selective_scan import cuda, selective_scan

pytestmark = pytest.mark.numeric


def kernel(
    u: Tensor,
    delta: Tensor,
    A: Tensor,  # noqa: N803
    B: Tensor,  # noqa: N803
    C: Tensor,  # noqa: N803
    D: Tensor | None = None,  # noqa: N803
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    """The checks of selective_scan.cpp around the float64 loop."""
    batch, channels, length = u.shape
    assert all(x.dtype == u.dtype for x in (delta, B, C, z) if x is not None), "one type for all that varies in time"
    assert all(x.dtype == torch.float32 for x in (A, D, delta_bias) if x is not None), "float32 parameters"
    assert B.ndim in {3, 4}
    assert B.shape[0] == batch
    assert B.shape[-2:] == (A.shape[1], length)
    assert A.shape == (channels, C.shape[-2])
    return selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, backend="reference")


@pytest.fixture
def mamba_ssm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    interface = ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = kernel
    names = {"selective_scan_cuda": ModuleType("x"), "mamba_ssm": ModuleType("x"), "mamba_ssm.ops": ModuleType("x")}
    for name, module in (names | {interface.__name__: interface}).items():
        monkeypatch.setitem(sys.modules, name, module)
    return interface


@pytest.mark.usefixtures("mamba_ssm")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_call_keeps_the_contract_of_the_kernel(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    u, z = torch.randn(2, 2, 8, 20, generator=generator).to(dtype).unbind()
    delta = torch.rand(2, 8, 20, generator=generator)
    B, C = torch.randn(2, 2, 2, 4, 20, generator=generator).unbind()  # noqa: N806
    A, D, bias = -torch.rand(8, 4), torch.rand(8).to(dtype), torch.rand(8).to(dtype)  # noqa: N806
    y = cuda.cuda_scan(u, delta, A, B, C, D, z, bias, delta_softplus=True)
    assert y.dtype == dtype
    expected = selective_scan(u, delta, A, B, C, D, z, bias, delta_softplus=True, backend="chunked")
    tolerance = 1e-5 if dtype == torch.float32 else 0.02 * expected.abs().max().item()
    torch.testing.assert_close(y, expected, rtol=0, atol=tolerance)
    without = cuda.cuda_scan(u, delta, A, B, C, None, None, None, delta_softplus=False)
    assert without.shape == u.shape


class _BrokenExtension:
    """An import hook that fails as an extension built for another torch does."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "selective_scan_cuda":
            msg = "undefined symbol: _ZN3c104cuda9SetDeviceEi"
            raise OSError(msg)


def test_broken_extension_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [_BrokenExtension, *sys.meta_path])
    assert not cuda.is_available.__wrapped__()


@pytest.mark.usefixtures("mamba_ssm")
def test_tensors_on_the_cpu_never_reach_the_kernel() -> None:
    assert cuda.is_available.__wrapped__()
    x, B = torch.rand(1, 4, 9), torch.rand(1, 3, 9)  # noqa: N806
    with pytest.raises(RuntimeError, match="needs tensors on a GPU"):
        selective_scan(x, x, -torch.rand(4, 3), B, B, backend="cuda")
    assert selective_scan(x, x, -torch.rand(4, 3), B, B).isfinite().all()
