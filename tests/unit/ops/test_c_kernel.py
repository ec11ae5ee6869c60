# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Building, threading and doing without the C kernel; its numbers are in test_selective_scan.py."""

import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from anomalib_vmpfd.ops.selective_scan import c_kernel, selective_scan

# not `numeric`: no variable holds the kernel to a lower instruction set, so a test below builds it for each
pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))),
    reason="the C kernel needs a C compiler",
)

# prints the backend that the automatic choice takes in a fresh process, and fails if the scan does not work there
PROBE = """
import torch
from anomalib_vmpfd.ops.selective_scan import selective_scan, dispatch
x = torch.rand(1, 4, 9)
B = torch.rand(1, 16, 9)
arguments = x, x, -torch.rand(4, 16), B, B
error = (selective_scan(*arguments) - selective_scan(*arguments, backend="reference")).abs().max()
assert error < 1e-5
print(dispatch._choose_backend(x, 16))
"""


def inputs(batch: int = 3, channels: int = 8, length: int = 150, states: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    u, delta = torch.rand(2, batch, channels, length, generator=generator).unbind()
    B, C = torch.randn(2, batch, 2, states, length, generator=generator).unbind()  # noqa: N806
    return [u, delta, -5 * torch.rand(channels, states, generator=generator), B, C]


def gradients(arguments: list[Tensor], backend: str) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in arguments]
    return list(torch.autograd.grad(selective_scan(*leaves, backend=backend).square().sum(), leaves))


def test_process_without_a_compiler_falls_back_in_silence(tmp_path: Path) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path), "PATH": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["chunked"]
    assert not result.stderr


def test_library_is_built_once_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c_kernel, "user_cache_path", lambda name: tmp_path / name)
    assert c_kernel._library.__wrapped__() is not None
    (library,) = (tmp_path / "anomalib_vmpfd").iterdir()
    built = library.stat().st_mtime_ns
    monkeypatch.setenv("PATH", str(tmp_path))
    assert c_kernel._library.__wrapped__() is not None, "the cached library needs no compiler"
    assert library.stat().st_mtime_ns == built
    monkeypatch.setattr(c_kernel, "FLAGS", (*c_kernel.FLAGS, "-g"))
    assert c_kernel._library.__wrapped__() is None, "other flags ask for another library"


def test_switch_turns_the_kernel_off(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = inputs()
    monkeypatch.setenv("ANOMALIB_VMPFD_C_KERNEL", "0")
    assert torch.equal(selective_scan(*arguments), selective_scan(*arguments, backend="chunked"))
    with pytest.raises(RuntimeError, match="ANOMALIB_VMPFD_C_KERNEL"):
        selective_scan(*arguments, backend="c")


def test_broken_compiler_and_broken_library_are_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    monkeypatch.setattr(c_kernel, "_cache_path", lambda _: tmp_path / "absent.so")
    assert c_kernel._library.__wrapped__() is None
    (tmp_path / "damaged.so").write_bytes(b"not a library")
    monkeypatch.setattr(c_kernel, "_cache_path", lambda _: tmp_path / "damaged.so")
    assert c_kernel._library.__wrapped__() is None


@pytest.mark.parametrize("states", [1, 7, 64])
def test_any_number_of_states_is_exact(states: int) -> None:
    arguments = inputs(states=states)
    exact = gradients([x.double() for x in arguments], "reference")
    for value, target in zip(gradients(arguments, "c"), exact, strict=True):
        assert (value - target).abs().max() < 2e-6 * target.abs().max()


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="the flags are those of x86")
@pytest.mark.parametrize("without", [["avx512f"], ["fma"], ["avx2", "fma"], ["avx"]], ids="-".join)
def test_every_instruction_set_that_the_processor_has_is_exact(without, tmp_path, monkeypatch):
    """Vectors of 4, 8 and 16 numbers sum in another order, and without FMA every product is rounded."""
    monkeypatch.setattr(c_kernel, "user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(c_kernel, "FLAGS", (*c_kernel.FLAGS, *(f"-mno-{name}" for name in without)))
    monkeypatch.setattr(c_kernel, "_library", cache(c_kernel._library.__wrapped__))
    arguments = inputs()
    exact = gradients([x.double() for x in arguments], "reference")
    for value, target in zip(gradients(arguments, "c"), exact, strict=True):
        assert (value - target).abs().max() < 2e-6 * target.abs().max()


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = inputs(batch=5)
    alone = [selective_scan(*arguments, backend="c"), *gradients(arguments, "c")]
    monkeypatch.setattr(c_kernel, "WORK_PER_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    together = [selective_scan(*arguments, backend="c"), *gradients(arguments, "c")]
    for one, many in zip(alone, together, strict=True):
        assert torch.equal(one, many)


def test_automatic_choice_leaves_float64_to_pytorch_and_nan_is_not_hidden() -> None:
    arguments = inputs()
    exact = selective_scan(*(x.double() for x in arguments))
    assert exact.dtype == torch.float64
    with pytest.raises(RuntimeError, match="tensors on the CPU"):
        selective_scan(*(x.double() for x in arguments), backend="c")
    arguments[1][0, 0, 3] = torch.nan
    y = selective_scan(*arguments, backend="c")
    assert y[0, 0, 3:].isnan().all()
    assert y.isnan().sum() == 147
