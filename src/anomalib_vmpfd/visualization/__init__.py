# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Pictures: the visualizer of every test and prediction, and the figures of the paper."""

from .heatmap_figure import Panel, heatmap_figure, to_picture
from .visualizer import HeatmapVisualizer

__all__ = ["HeatmapVisualizer", "Panel", "heatmap_figure", "to_picture"]
