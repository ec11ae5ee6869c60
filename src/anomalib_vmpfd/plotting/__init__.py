# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Pictures: the visualizer of tests and predictions, and the figures of the paper.

``HeatmapVisualizer`` is imported on first use: reports of the benchmark take their style from here and need neither
torch nor anomalib.
"""

from typing import TYPE_CHECKING, Any

from .heatmap_figure import Panel, heatmap_figure, to_picture

if TYPE_CHECKING:
    from .visualizer import HeatmapVisualizer

__all__ = ["HeatmapVisualizer", "Panel", "heatmap_figure", "to_picture"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import the visualizer on first use (PEP 562)."""
    if name != "HeatmapVisualizer":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from .visualizer import HeatmapVisualizer

    return HeatmapVisualizer
