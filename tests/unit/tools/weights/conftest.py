# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The tools import each other as neighbours, as Python does when it runs one of them."""

import pytest


@pytest.fixture(autouse=True)
def _tools_on_path(monkeypatch: pytest.MonkeyPatch, repository) -> None:
    monkeypatch.syspath_prepend(str(repository / "tools" / "weights"))
