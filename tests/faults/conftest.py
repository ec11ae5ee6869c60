# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Real processes that are killed, starved and doubled; ``tools/release/reliability_report.py`` runs them many times."""

from reliability_fixtures import case, parts

__all__ = ["case", "parts"]
