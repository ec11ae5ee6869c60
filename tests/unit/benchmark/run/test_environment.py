# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A row says on which processor it was measured, and what of it decides the speed."""

import pytest
import torch

from anomalib_vmpfd import processor
from anomalib_vmpfd.benchmark.records import COLUMNS
from anomalib_vmpfd.benchmark.run import environment


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (
            "model name\t: Xeon\nflags\t\t: avx2 avx512_bf16 amx_bf16\n\nmodel name\t: B\n",
            "Xeon [AVX2, native bf16]",
        ),
        ("model name\t: Xeon\nflags\t\t: avx2 avx512f\nbugs\t\t:\n", "Xeon [AVX2, emulated bf16]"),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", "aarch64 [AVX2, native bf16]"),
        ("", "aarch64 [AVX2]"),
    ],
    ids=["native", "emulated", "arm", "unknown"],
)
def test_a_processor_is_named_with_its_instruction_set_and_bfloat16(cpuinfo, expected, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(cpuinfo, encoding="utf-8")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(processor.platform, "processor", lambda: "aarch64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert environment.describe(torch.device("cpu"))["device_name"] == expected


def test_every_fact_has_its_column():
    assert set(environment.describe(torch.device("cpu"))) <= set(COLUMNS)
