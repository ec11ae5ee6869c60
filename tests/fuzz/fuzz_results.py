# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Fuzzes the readers of a suite's results: any bytes end in rows that can be written back, or in a ``ResultsError``."""

import csv
import json
import os
import pickle
import shutil
import tempfile
import zipfile
from pathlib import Path

import harness
import numpy as np

from anomalib_vmpfd.benchmark.records import RunKey, RunResult
from anomalib_vmpfd.benchmark.results import Results, ResultsError

COVERED = (
    Results.rows, Results.done, Results.predictions, Results.maps, csv.DictReader.__next__,
    json.decoder.JSONDecoder.raw_decode, zipfile.ZipFile._RealGetContents, zipfile.ZipFile.open,
    np.lib.format.read_array,
)  # fmt: skip
FOLDER = Path(tempfile.gettempdir()) / f"fuzz-results-{os.getpid()}"
KEY = RunKey("s", "A", "d", "c", 0)
OTHER = KEY._replace(seed=1)
ROW = {"status": "ok", "settings": "x", "image_AUROC": 0.5}
KINDS = {b"c": Path("results.csv"), b"j": Path(f"predictions/{KEY.stem}.json"), b"n": Path(f"maps/{KEY.stem}.npz")}


def _prepare() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    for path in KINDS.values():
        (FOLDER / path).parent.mkdir(parents=True, exist_ok=True)
    (FOLDER / ".gitignore").touch()


def target(data: bytes) -> None:
    """The first byte chooses the file, the others are its content."""
    kind = data[:1] if data[:1] in KINDS else b"c"
    path = FOLDER / KINDS[kind]
    path.write_bytes(data[1:])
    try:
        _read(kind)
    except ResultsError as error:
        assert path.name in str(error)  # noqa: PT017
        assert path.read_bytes() == data[1:], "a damaged file is left as it is"
    finally:
        path.unlink()


def _read(kind: bytes) -> None:
    results = Results(FOLDER)
    if kind == b"j":
        assert isinstance(results.predictions(KEY), dict)
    elif kind == b"n":
        assert all(isinstance(value, np.ndarray) for value in results.maps(KEY).values())
    else:
        before = results.done()
        results.record(RunResult({**OTHER._asdict(), **ROW}))
        assert results.done() == {**before, OTHER: "x"}, "no run is lost"


class Attack:
    """Runs a command where a pickle is trusted."""

    def __reduce__(self):
        return os.system, ("true",)


def seeds() -> list[bytes]:
    """Whole files of the three kinds, and hostile ones."""
    _prepare()
    results = Results(FOLDER)
    maps = {"maps": np.zeros((2, 3, 3), np.uint8), "files": np.array(["a", "b"])}
    for key in (KEY, OTHER, KEY._replace(model='"odd", name', category="ü")):
        results.record(RunResult({**key._asdict(), **ROW}, {"scores": [0.5], "labels": [1]}, maps))
    found = [kind + (FOLDER / path).read_bytes() for kind, path in KINDS.items()]
    np.savez(FOLDER / "code.npz", maps=np.array([Attack()], object))
    found += [b"n" + (FOLDER / "code.npz").read_bytes(), b"n" + pickle.dumps(Attack()), b"j[1]", b"j{}", b"c", b"c\n"]
    _prepare()
    return found


if __name__ == "__main__":
    harness.main("results", target, seeds(), COVERED)
