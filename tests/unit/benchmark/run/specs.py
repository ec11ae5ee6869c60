# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Runs for tests."""

from anomalib_vmpfd.benchmark.records import RunKey
from anomalib_vmpfd.benchmark.run.spec import RunSpec
from anomalib_vmpfd.benchmark.suite import SpeedProtocol


def spec(**changes: object) -> RunSpec:
    """A run of anomalib's EfficientAd on the CPU, with changes."""
    base = {
        "key": RunKey("s", "Model", "SampleParts", "washer", 0),
        "model": "EfficientAd",
        "args": {},
        "data": "MVTecAD",
        "data_args": {},
        "trainer": {"accelerator": "cpu"},
        "weights": {},
        "speed": SpeedProtocol(warmup=0, repeats=1, batch_size=1, batch_repeats=1),
        "threads": None,
        "settings": "x",
    }
    return RunSpec(**base | changes)
