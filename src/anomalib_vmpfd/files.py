# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Atomic writing of files, and of tables that keep what is not measured anew."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that a reader or a kill finds the old content or the new, never a part.

    Args:
        path (Path): The file.
        content (bytes | memoryview): Its content.

    Raises:
        OSError: If it cannot be written, for lack of space or of permission; names the file and the cure.
    """
    try:
        _write(path, content)
    except OSError as error:
        msg = (
            f"{path} could not be written ({error.strerror or error}); what it held before is unharmed. Free space, or "
            f"see to it that {path.parent} can be written to, and start again."
        )
        raise OSError(error.errno, msg) from error


def _write(path: Path, content: bytes | memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # beside the target: from a temporary folder on another disk the last step would be a copy, which a kill can cut
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".part", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)  # temporary files are private, results are not
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def replace_rows(path: Path, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    """Write rows into a CSV table; what it held of the same columns stays, unless a new row has the same keys.

    Args:
        path (Path): The table, which need not exist.
        rows (Sequence[Mapping[str, Any]]): New rows, at least one, all of the same columns; they come first.
        keys (Sequence[str]): Columns by which rows are told apart; none: all that it held goes.
    """

    def key(row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in keys)

    new = {key(row) for row in rows}
    held = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.exists() else []
    kept = [row for row in held if row.keys() == rows[0].keys() and key(row) not in new]
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows([*rows, *kept])
    write_atomically(path, table.getvalue().encode())
