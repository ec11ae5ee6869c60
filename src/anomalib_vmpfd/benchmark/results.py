# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The results of a suite on disk, safe under concurrent processes and interruption at any moment."""

import csv
import io
import json
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from anomalib_vmpfd.files import write_atomically

from .records import COLUMNS, RunKey, RunResult

IGNORED = """\
# Pictures of licensed data sets, logs, checkpoints and trainings are not committed.
/checkpoints/
/gallery.html
/logs/
/maps/
/trainings/
*.lock
"""


class ResultsError(ValueError):
    """A file of results that is damaged; the message names it and the cure."""


class Results:
    """The folder of a suite.

    Args:
        folder (Path): ``results/<suite>``; created when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def table(self) -> Path:
        """Path: The results file."""
        return self.folder / "results.csv"

    def log(self, key: RunKey) -> Path:
        """Return the file for the output of a run.

        Args:
            key (RunKey): The run.

        Returns:
            Path: File below ``logs/``.
        """
        return self.folder / "logs" / f"{key.stem}.log"

    def rows(self) -> list[dict[str, str]]:
        """Read all rows.

        Returns:
            list[dict[str, str]]: Rows as text, sorted by their key.

        Raises:
            ResultsError: If the file is damaged. It is never overwritten then.
        """
        if not self.table.is_file():
            return []
        with _readable(self.table), self.table.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if missing := {*RunKey._fields, "status", "settings"} - set(reader.fieldnames or ()):
                msg = f"its header lacks {', '.join(sorted(missing))}"
                raise ValueError(msg)
            rows = list(reader)
            for row in rows:
                _key(row)
                if None in row or not row["status"] or row["settings"] is None:
                    msg = f"the row of {row['model']} {row['category']} is not complete"
                    raise ValueError(msg)
            return rows

    def done(self) -> dict[RunKey, str]:
        """Return the runs that are complete.

        Returns:
            dict[RunKey, str]: Digest of the settings by run, for every run whose status is ``ok``.
        """
        return {_key(row): row["settings"] for row in self.rows() if row["status"] == "ok"}

    def record(self, result: RunResult) -> None:
        """Write a run's row and artifacts, in place of an older row of the same run.

        Args:
            result (RunResult): The result.
        """
        key = _key(result.row)
        if result.predictions:
            content = json.dumps({**key._asdict(), **result.predictions}, separators=(",", ":"))
            write_atomically(self.folder / "predictions" / f"{key.stem}.json", content.encode())
        if result.maps:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **result.maps)
            write_atomically(self.folder / "maps" / f"{key.stem}.npz", buffer.getvalue())
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "results.csv.lock"):
            by_key = {_key(row): row for row in self.rows()}
            by_key[key] = {name: _text(result.row.get(name)) for name in COLUMNS}
            self._write(by_key[key] for key in sorted(by_key, key=lambda key: (key.dataset, key.category, *key)))

    def predictions(self, key: RunKey) -> dict[str, Any] | None:
        """Read the scores and curves of a run.

        Args:
            key (RunKey): The run.

        Returns:
            dict[str, Any] | None: What the run returned, or ``None`` if there is no file.

        Raises:
            ResultsError: If the file is damaged.
        """
        path = self.folder / "predictions" / f"{key.stem}.json"
        if not path.is_file():
            return None
        with _readable(path):
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                msg = f"it holds a {type(content).__name__}, not the predictions of a run"
                raise TypeError(msg)
            return content

    def maps(self, key: RunKey) -> dict[str, np.ndarray] | None:
        """Read the heatmaps of a run.

        Args:
            key (RunKey): The run.

        Returns:
            dict[str, np.ndarray] | None: ``maps`` and ``files``, or ``None`` if they were not kept.

        Raises:
            ResultsError: If the file is damaged.
        """
        path = self.folder / "maps" / f"{key.stem}.npz"
        if not path.is_file():
            return None
        with _readable(path), np.load(path, allow_pickle=False) as content:
            return dict(content)

    def claim(self, key: RunKey) -> FileLock | None:
        """Claim a run, so that a second process on the same suite skips it.

        Args:
            key (RunKey): The run.

        Returns:
            FileLock | None: The claim, held until it is released or this process ends; ``None`` if it is taken.
        """
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "logs" / f"{key.stem}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def _write(self, rows: Iterable[dict[str, str]]) -> None:
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n", restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        if not (self.folder / ".gitignore").exists():
            write_atomically(self.folder / ".gitignore", IGNORED.encode())
        write_atomically(self.table, buffer.getvalue().encode())


@contextmanager
def _readable(path: Path) -> Generator[None, None, None]:
    """Turn the errors of a damaged file into one that names it."""
    try:
        yield
    except (PermissionError, FileNotFoundError):
        raise
    except Exception as error:  # a damaged archive raises nearly any exception
        reason = " ".join(str(error).split())[:200]
        msg = (
            f"{path} is damaged ({type(error).__name__}: {reason}) and was left as it is. Restore it, or move it away "
            "to have its runs measured again."
        )
        raise ResultsError(msg) from error


def _key(row: dict[str, Any]) -> RunKey:
    return RunKey(row["suite"], row["model"], row["dataset"], row["category"], int(row["seed"]))


def _text(value: Any) -> str:  # noqa: ANN401
    """Format numbers with seven significant digits, the precision of float32, and other values on one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.7g}"
    return " ".join(str(value).split())
