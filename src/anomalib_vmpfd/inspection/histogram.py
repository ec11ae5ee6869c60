# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Histogram of the scores with the threshold, as SVG in the colours of the page.

Matplotlib takes longer for it than a model for an image, and it is drawn anew while the threshold moves.
"""

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from anomalib_vmpfd.plotting.style import COLORS

from .session import Judged

BINS = 50
WIDTH, HEIGHT = 320, 100  # of the bars, in units of the drawing
LEFT, BELOW, ABOVE = 24, 18, 8
KINDS = {False: ("good", COLORS[0]), True: ("defects", COLORS[1]), None: ("not known", COLORS[7])}

FIGURE = Markup(
    '<div class="histogram"><svg viewBox="{box}" role="img" aria-label="{label}">'
    '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="5" height="5" fill="{defects}"/><rect width="1.5" height="5" fill="white"/></pattern></defs>'
    "{bars}{ticks}"
    '<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{bottom}" class="threshold"/></svg><p class="kinds">{kinds}</p></div>'
)
BAR = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}"/>')
TICK = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
KIND = Markup('<span><i style="background: {}"></i>{} {}</span>')


def limits(images: Sequence[Judged], threshold: float) -> tuple[float, float]:
    """Range of scores that is worth showing, in whole hundredths.

    Args:
        images (Sequence[Judged]): The images.
        threshold (float): It is in the range, too.

    Returns:
        tuple[float, float]: Lower and upper end, within [0, 1].
    """
    seen = [threshold, *(each.score for each in images)]
    lowest, highest = min(seen), max(seen)
    around = max(0.01, 0.1 * (highest - lowest))
    return max(0.0, math.floor(100 * (lowest - around)) / 100), min(1.0, math.ceil(100 * (highest + around)) / 100)


def histogram(images: Sequence[Judged], threshold: float, ends: tuple[float, float]) -> Markup:
    """Draw how many images have which score.

    Args:
        images (Sequence[Judged]): The images.
        threshold (float): Marked by a line.
        ends (tuple[float, float]): Range of scores to show.

    Returns:
        Markup: HTML; bars of good images, defects and others are stacked.
    """
    groups = {truth: [each.score for each in images if each.truth is truth] for truth in KINDS}
    groups = {truth: scores for truth, scores in groups.items() if scores}
    edges = np.linspace(*ends, BINS + 1)
    counts = {truth: np.histogram(scores, edges)[0] for truth, scores in groups.items()}
    highest = max(1, int(sum(counts.values(), np.zeros(BINS)).max()))
    base = np.zeros(BINS)
    bars = Markup()
    for truth, heights in counts.items():
        fill = "url(#hatch)" if truth else KINDS[truth][1]
        for place, (below, height) in enumerate(zip(base, heights, strict=True)):
            if height:
                top = ABOVE + HEIGHT * (1 - (below + height) / highest)
                step = WIDTH / BINS
                bars += BAR.format(LEFT + step * place, top, step, HEIGHT * height / highest, fill)
        base += heights
    bottom = ABOVE + HEIGHT
    ticks = Markup().join(
        TICK.format(LEFT + WIDTH * share, bottom + 14, anchor, f"{ends[0] + share * (ends[1] - ends[0]):.3g}")
        for share, anchor in ((0, "middle"), (0.5, "middle"), (1, "end"))
    )
    ticks += TICK.format(LEFT - 4, ABOVE + 8, "end", highest) + TICK.format(LEFT - 4, bottom, "end", 0)
    counted = ", ".join(f"{len(scores)} {KINDS[truth][0]}" for truth, scores in groups.items()) or "no images"
    return FIGURE.format(
        box=f"0 0 {LEFT + WIDTH + 4} {bottom + BELOW}",
        label=f"Histogram of scores: {counted}; threshold {threshold:.4f}",
        defects=KINDS[True][1],
        bars=bars,
        ticks=ticks,
        at=LEFT + WIDTH * (threshold - ends[0]) / (ends[1] - ends[0]),
        bottom=bottom,
        kinds=Markup().join(
            KIND.format(KINDS[truth][1], len(scores), KINDS[truth][0]) for truth, scores in groups.items()
        ),
    )
