# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Write the report of a suite: Markdown, HTML, plots and gallery."""

from pathlib import Path

from anomalib_vmpfd.benchmark.results import Results
from anomalib_vmpfd.benchmark.suite import Suite
from anomalib_vmpfd.files import write_atomically

from . import gallery, html_report, markdown_report, plots, summary


def write_report(suite: Suite, folder: Path, licensed: bool = False) -> list[Path]:
    """Write the report of a suite from its results.

    Args:
        suite (Suite): The suite.
        folder (Path): Folder of its results.
        licensed (bool, optional): Also write ``gallery.html`` with pictures of data sets that must not be published.
            Defaults to ``False``.

    Returns:
        list[Path]: The report in Markdown and HTML, and the gallery if asked for.
    """
    results = Results(folder)
    numbers = summary.summarise(suite, results)
    drawings = plots.draw(numbers, results)
    for stale in (folder / "plots").glob("*.svg"):
        if stale.name not in drawings:
            stale.unlink()
    for name, (_, svg) in drawings.items():
        write_atomically(folder / "plots" / name, svg.encode())
    titles = {name: title for name, (title, _) in drawings.items()}
    pages = {"report.md": markdown_report.report(numbers, results, titles)}
    for name, everything in [("report.html", False), *([("gallery.html", True)] if licensed else [])]:
        pictures = gallery.collect(numbers, results, licensed=everything)
        pages[name] = html_report.render(numbers, results, drawings, pictures)
    for name, content in pages.items():
        write_atomically(folder / name, content.encode())
    return [folder / name for name in pages]
