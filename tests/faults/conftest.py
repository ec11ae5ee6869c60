# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Real processes that are killed, starved and doubled; ``scripts/reliability_report.py`` runs them many times."""

import importlib.util
import sys
from pathlib import Path

SHARED = Path(__file__).parents[1] / "reliability" / "conftest.py"
spec = importlib.util.spec_from_file_location("reliability_conftest", SHARED)
shared = importlib.util.module_from_spec(spec)
sys.modules["reliability_conftest"] = shared
spec.loader.exec_module(shared)
case, parts = shared.case, shared.parts
