# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Colours, markers and Matplotlib settings that all pictures, figures and plots share."""

COLORMAP = "inferno"
"""Colour map of heatmaps: perceptually uniform, and readable with any colour vision."""

INK = "#010203"
"""Text colour of plots; where a plot is written as SVG, it is replaced by the reader's own text colour."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
"""Palette of Okabe and Ito, distinguishable with any colour vision."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Markers, so that series are distinguishable without colour."""

DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
"""Line styles, so that series are distinguishable without colour."""

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "anomalib-vmpfd",
    "font.size": 10,
    "text.parse_math": False,  # a dollar in a label is a dollar
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "figure.constrained_layout.use": True,
}
"""Matplotlib settings of plots, for ``matplotlib.rc_context``."""
