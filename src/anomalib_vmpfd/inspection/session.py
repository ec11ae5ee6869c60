# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The images of one server, their scores, and what is known of them; moving the threshold runs no model."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import NamedTuple

import numpy as np

from anomalib_vmpfd.engine.image_errors import ImageError
from anomalib_vmpfd.predictions.row_files import Row
from anomalib_vmpfd.predictions.rows import LABELS

ORDERS = {
    "added": "as they came",
    "score": "highest score first",
    "missed": "missed defects, worst first",
    "false alarms": "false alarms, worst first",
    "near": "closest to the threshold first",
    "marked": "marked as wrongly judged",
}


class Waiting(NamedTuple):
    """An image that is to be judged.

    Attributes:
        file (Path): The file.
        name (str): What it is called.
        known (bool | None): Whether it is anomalous, where that is known.
    """

    file: Path
    name: str
    known: bool | None = None


@dataclass
class Judged:
    """An image that was judged.

    Attributes:
        row (Row): Its row at the model's own threshold.
        file (Path): The file.
        known (bool | None): Whether it is anomalous, where the folder says so.
        said (bool | None): The same, where somebody marked it as wrongly judged.
    """

    row: Row
    file: Path
    known: bool | None = None
    said: bool | None = None

    @property
    def truth(self) -> bool | None:
        """Whether it is anomalous, as far as anybody knows."""
        return self.known if self.said is None else self.said

    @property
    def score(self) -> float:
        """Its score."""
        return self.row["score"]

    def verdict(self, threshold: float) -> bool:
        """Whether it is anomalous at a threshold, by comparing numbers as the model does, in float32."""
        return bool(np.float32(self.score) >= np.float32(threshold))


class Counts(NamedTuple):
    """How many images are judged how.

    Attributes:
        normal (int): Judged normal.
        anomalous (int): Judged anomalous.
        good (int): Known to be good.
        false_alarms (int): Judged anomalous of these.
        defects (int): Known to be anomalous.
        missed (int): Judged normal of these.
    """

    normal: int
    anomalous: int
    good: int
    false_alarms: int
    defects: int
    missed: int


class Session:
    """Images that were judged and those that wait.

    Args:
        row (Callable[[Path, str], Row]): Judges a file, and gives its row.

    Attributes:
        images (list[Judged]): In the order in which they were judged.
        waiting (deque[Waiting]): Not judged yet.
        refused (list[str]): What was wrong with files that could not be read.
    """

    def __init__(self, row: Callable[[Path, str], Row]) -> None:
        self._row = row
        # uploads come from many threads
        self._lock = RLock()
        self.images: list[Judged] = []
        self.waiting: deque[Waiting] = deque()
        self.refused: list[str] = []

    def judge_next(self) -> bool:
        """Judge the image that waits longest, or note why it cannot be; whether there was one."""
        try:
            file, name, known = self.waiting.popleft()
        except IndexError:
            return False
        try:
            row = self._row(file, name)
        except ImageError as error:
            with self._lock:
                self.refused.append(str(error).replace(str(file), name))
        else:
            with self._lock:
                self.images.append(Judged(row, file, known))
        return True

    def clear(self) -> None:
        """Forget all images."""
        with self._lock:
            self.waiting.clear()
            self.images, self.refused = [], []

    def counts(self, threshold: float) -> Counts:
        """Count verdicts and errors at a threshold."""
        images = list(self.images)
        verdicts = [each.verdict(threshold) for each in images]
        truths = [each.truth for each in images]
        return Counts(
            normal=verdicts.count(False),
            anomalous=verdicts.count(True),
            good=truths.count(False),
            false_alarms=sum(v and t is False for v, t in zip(verdicts, truths, strict=True)),
            defects=truths.count(True),
            missed=sum(not v and t is True for v, t in zip(verdicts, truths, strict=True)),
        )

    def order(self, kind: str, threshold: float) -> list[int]:
        """Order images to step through.

        Args:
            kind (str): One of ``ORDERS``.
            threshold (float): The threshold.

        Returns:
            list[int]: Their places in :attr:`images`; errors begin with the score that is farthest on the wrong side.
        """
        images = dict(enumerate(self.images))
        if kind == "missed":
            chosen = [i for i, each in images.items() if each.truth is True and not each.verdict(threshold)]
            return sorted(chosen, key=lambda i: images[i].score)
        if kind == "false alarms":
            chosen = [i for i, each in images.items() if each.truth is False and each.verdict(threshold)]
            return sorted(chosen, key=lambda i: -images[i].score)
        if kind == "score":
            return sorted(images, key=lambda i: -images[i].score)
        if kind == "near":
            return sorted(images, key=lambda i: abs(images[i].score - threshold))
        if kind == "marked":
            return [i for i, each in images.items() if each.said is not None]
        return list(images)

    def mark(self, index: int, threshold: float, wrong: bool) -> None:
        """Mark an image as wrongly judged, or take the mark back.

        Args:
            index (int): Its place in :attr:`images`.
            threshold (float): The threshold of the verdict that is wrong: the truth is its opposite from then on.
            wrong (bool): Whether it is.
        """
        image = self.images[index]
        image.said = not image.verdict(threshold) if wrong else None

    def rows(self, threshold: float) -> list[Row]:
        """Rows of all images at a threshold, and what is known of them.

        Returns:
            list[Row]: The columns of ``predictions.csv``, then ``truth`` (``normal``, ``anomalous`` or nothing) and
            ``wrongly_judged``, whether somebody marked it.
        """
        return [
            {
                **each.row,
                "label": LABELS[each.verdict(threshold)],
                "threshold": threshold,
                "truth": LABELS[each.truth],
                "wrongly_judged": each.said is not None,
            }
            for each in self.images
        ]
