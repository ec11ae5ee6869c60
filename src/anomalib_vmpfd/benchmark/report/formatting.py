# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Numbers and tables as Markdown."""

import math
from collections.abc import Iterable


def percent(mean: float, deviation: float = math.nan) -> str:
    """Write a fraction as percent with one decimal.

    Args:
        mean (float): Fraction, or NaN.
        deviation (float, optional): Deviation as a fraction. Defaults to NaN: not written.

    Returns:
        str: Text.
    """
    if math.isnan(mean):
        return "-"
    return f"{100 * mean:.1f}" + ("" if math.isnan(deviation) else f" ± {100 * deviation:.1f}")


def difference(measured: tuple[float, float] | None) -> str:
    """Write a difference and half its 95 % interval in percent.

    Args:
        measured (tuple[float, float] | None): Difference and its standard error as fractions, or ``None``.

    Returns:
        str: Text.
    """
    if measured is None or math.isnan(measured[0]):
        return "-"
    return f"{100 * measured[0]:+.1f}" + ("" if math.isnan(measured[1]) else f" ± {196 * measured[1]:.1f}")


def interval(measured: tuple[float, float, float] | None) -> str:
    """Write a fraction and both ends of its interval in percent.

    Args:
        measured (tuple[float, float, float] | None): Fraction, lower and upper end, or ``None``.

    Returns:
        str: Text.
    """
    if measured is None:
        return "-"
    value, low, high = (f"{100 * part:.1f}" for part in measured)
    return f"{value} ({low} to {high})"


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a Markdown table, the first column left-aligned, the others right-aligned.

    Args:
        header (Iterable[str]): Column titles.
        rows (Iterable[Iterable[str]]): Cells.

    Returns:
        str: Markdown.
    """
    header = [escape(title) for title in header]
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *([escape(str(cell)) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape(text: str) -> str:
    """Escape a text for Markdown, so that it neither breaks a table nor is read as HTML.

    Args:
        text (str): Any text.

    Returns:
        str: Markdown.
    """
    text = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("[", "\\[")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
