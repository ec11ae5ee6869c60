# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The tools of a release find each other."""

import pytest


@pytest.fixture(autouse=True)
def _siblings(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "tools" / "release"))
