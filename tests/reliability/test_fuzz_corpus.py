# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Seeds, findings and some thousand mutations of the fuzzers in ``tests/fuzz``, in a few seconds."""

import random

import fuzz_results
import fuzz_weights
import harness
import pytest

MUTATIONS = 1500


@pytest.mark.parametrize(("name", "fuzzer"), [("weights", fuzz_weights), ("results", fuzz_results)])
def test_no_bytes_do_more_than_be_refused(name, fuzzer, case):
    reader = {"weights": "weights loader", "results": "results reader"}[name]
    case(f"{MUTATIONS} mutated files for the {reader}", "read, or one error that names the file; nothing runs")
    inputs = [*fuzzer.seeds(), *harness.corpus(name)]
    run, generator = harness.guarded(fuzzer.target), random.Random(1)
    for data in inputs:
        run(data)
    for _ in range(MUTATIONS):
        run(harness.mutate(generator, generator.choice(inputs), inputs))
