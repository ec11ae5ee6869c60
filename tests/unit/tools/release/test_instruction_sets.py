# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""No level that the processor lacks: PyTorch would die of an illegal instruction."""

import runpy

import pytest


@pytest.mark.parametrize(
    ("highest", "levels"),
    [
        ("DEFAULT", []),
        ("AVX2", ["DEFAULT"]),
        ("AVX512", ["AVX2", "AVX512"]),
        ("SVE256", []),
    ],
)
def test_levels_end_at_the_processors_own(repository, highest, levels):
    tool = runpy.run_path(str(repository / "tools" / "release" / "instruction_sets.py"))
    present = tool["present"](highest)
    assert list(present) == levels
    assert len({tuple(variables.values()) for variables in present.values()}) == len(levels)
