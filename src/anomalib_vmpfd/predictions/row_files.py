# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""``predictions.csv`` and ``predictions.jsonl``: a row for each image, on the disk as soon as the image is judged."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from anomalib_vmpfd.files import write_atomically

Row = Mapping[str, Any]


class RowFiles:
    """The two files of one run.

    Args:
        folder (Path): Their folder.
        name (str): Their name without a suffix.
        resume (bool): Keep the whole rows that are there; a last one that was cut is dropped. Else both start anew.

    Attributes:
        kept (list[Row]): Rows of an earlier run that are kept.
    """

    def __init__(self, folder: Path, name: str = "predictions", resume: bool = False) -> None:
        self.csv, self.jsonl = folder / f"{name}.csv", folder / f"{name}.jsonl"
        self.kept: list[Row] = _whole_rows(self.jsonl) if resume else []
        self._started = False

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows at the end of both files; what is written outlives a kill.

        Args:
            rows (Iterable[Row]): One row or more, all with the same keys in one order.

        Raises:
            OSError: If they cannot be written; names the file and the cure.
        """
        rows = list(rows)
        if not self._started:
            write_atomically(self.jsonl, _json_lines(self.kept).encode())
            write_atomically(self.csv, _table(self.kept, header=list(rows[0])).encode())
            self._started = True
        for path, content in ((self.jsonl, _json_lines(rows)), (self.csv, _table(rows))):
            _append(path, content)


def _append(path: Path, content: str) -> None:
    try:
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(content)
    except OSError as error:
        msg = (
            f"{path} could not be written to ({error.strerror or error}); the rows before are unharmed. Free space and "
            "predict again with resume."
        )
        raise OSError(error.errno, msg) from error


def _json_lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _table(rows: Iterable[Row], header: list[str] | None = None) -> str:
    """Rows as CSV, lists in them as JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(header)
    for row in rows:
        values = row.values()
        writer.writerow([json.dumps(v, ensure_ascii=False) if isinstance(v, list) else v for v in values])
    return text.getvalue()


def _whole_rows(path: Path) -> list[Row]:
    """Rows of a file of JSON lines.

    Raises:
        ValueError: If another line than the last one is damaged.
    """
    rows: list[Row] = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            if line:
                rows.append(json.loads(line))
        except ValueError as error:  # noqa: PERF203 - the last line may be cut
            if number < len(lines):
                msg = f"{path}, line {number}, is no row; move the file away to predict all images again."
                raise ValueError(msg) from error
    return rows
