# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What happens when somebody does something on the page; without the page, so that it can be called from Python."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from anomalib_vmpfd.decide.recalibrate_command import report
from anomalib_vmpfd.decide.recalibration import recalibrate
from anomalib_vmpfd.decide.threshold import save_threshold
from anomalib_vmpfd.engine.image_errors import ImageError
from anomalib_vmpfd.predictions.row_files import RowFiles

from . import texts
from .histogram import histogram, limits
from .judge import Judge
from .pictures import figures, region_boxes
from .session import Judged, Session, Waiting

WHOLE = "Whole image"
SECONDS_BETWEEN = 1.0  # pages while images are judged


class Overview(NamedTuple):
    """What the page shows of all images.

    Attributes:
        summary (Markup): Verdicts and errors.
        histogram (Markup): The scores.
        limits (tuple[float, float]): Ends of the range of scores.
    """

    summary: Markup
    histogram: Markup
    limits: tuple[float, float]


class Shown(NamedTuple):
    """What the page shows of one image.

    Attributes:
        place (int | None): Its place among the images; ``None`` shows nothing.
        position (int): Its place in the order, from 1; 0 where it is not in it.
        total (int): How many are in the order.
        verdict (Markup): What it is judged.
        marked (bool): Whether it is marked as wrongly judged.
        pictures (Markup): Its pictures.
        regions (list[str]): Names of what can be zoomed to.
    """

    place: int | None
    position: int
    total: int
    verdict: Markup
    marked: bool
    pictures: Markup
    regions: list[str]


class Handlers:
    """Reacts to what is done on the page.

    Args:
        judge (Judge): The model.
        folder (Path): Temporary folder, for what can be downloaded.

    Attributes:
        session (Session): The images.
    """

    def __init__(self, judge: Judge, folder: Path) -> None:
        self.judge = judge
        self.session = Session(judge.row)
        self._folder = folder
        self._uploaded: list[Path] = []

    def add(self, files: list[str]) -> None:
        """Put uploaded files in the queue."""
        uploaded = [Path(file) for file in files]
        self._uploaded += uploaded
        self.session.waiting.extend(Waiting(file, file.name) for file in uploaded)

    def judge_waiting(self) -> Iterator[int | None]:
        """Judge what waits; gives the place of the first new image at once, then nothing from time to time."""
        first, told = len(self.session.images), 0.0
        while self.session.judge_next():
            if told == 0.0 and len(self.session.images) > first:
                yield first
                told = time.monotonic()
            elif time.monotonic() - told > SECONDS_BETWEEN:
                yield None
                told = time.monotonic()

    def clear(self) -> None:
        """Forget all images, and remove those that were uploaded."""
        self.session.clear()
        while self._uploaded:
            self._uploaded.pop().unlink(missing_ok=True)

    def verdict(self, index: int | None, threshold: float) -> Markup:
        """What an image is judged at a threshold."""
        return texts.verdict(self._image(index), threshold)

    def overview(self, threshold: float) -> Overview:
        """All images at a threshold."""
        images = list(self.session.images)
        ends = limits(images, self.judge.threshold)
        # a threshold of before may lie outside
        ends = min(ends[0], threshold), max(ends[1], threshold)
        return Overview(texts.summary(self.session, threshold), histogram(images, threshold, ends), ends)

    def position(self, index: int | None, order: str, threshold: float) -> tuple[int, int]:
        """Place of an image in an order, from 1, or 0; and how many there are."""
        places = self.session.order(order, threshold)
        return (places.index(index) + 1 if index in places else 0), len(places)

    def at(self, position: int, order: str, threshold: float) -> int | None:
        """Image at a place of an order, from 1; past the end it starts anew."""
        places = self.session.order(order, threshold)
        return places[(position - 1) % len(places)] if places else None

    def show(self, index: int | None, order: str, threshold: float, panel: str, zoom: str = WHOLE) -> Shown:
        """One image, as a whole or a region of it."""
        position, total = self.position(index, order, threshold)
        image = self._image(index)
        if image is None:
            return Shown(None, 0, total, texts.verdict(None, threshold), False, Markup(), [WHOLE])  # noqa: FBT003
        boxes = dict(region_boxes(image.row["regions"]))
        try:
            view = self.judge.view(image.file, panel)
            pictures = figures(view, self.judge.titles[panel], image.row["path"], boxes.get(zoom))
        except (ImageError, OSError) as error:
            # the file was there when it was judged
            pictures = Markup("<p>{}</p>").format(str(error))
        said = texts.verdict(image, threshold)
        return Shown(index, position, total, said, image.said is not None, pictures, [WHOLE, *boxes])

    def rows_file(self, threshold: float) -> Path:
        """Write the rows.

        Raises:
            ValueError: If there are none.
        """
        rows = self.session.rows(threshold)
        if not rows:
            msg = "There are no images yet."
            raise ValueError(msg)
        files = RowFiles(self._folder / "rows")
        files.append(rows)
        return files.csv

    def keep_threshold(self, threshold: float) -> str:
        """Write the threshold into a new checkpoint, or new metadata of an export; says what was written."""
        path = save_threshold(self.judge.path, threshold)
        return f"{path} has the threshold {threshold:.4f}; {self.judge.path.name} is as it was."

    def recalibrate(self, image_fpr: float) -> str:
        """Set thresholds anew from the images known to be good, as ``anomalib-vmpfd calibrate``; says what changed.

        Raises:
            ValueError: If they are too few.
        """
        folder = self._folder / "good"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        good = [each for each in self.session.images if each.truth is False]
        for number, image in enumerate(good):
            shutil.copyfile(image.file, folder / f"{number:06}{image.file.suffix}")
        output = self.judge.path.with_name(f"{self.judge.path.stem}-image-fpr-{image_fpr:g}.ckpt")
        try:
            return report(recalibrate(self.judge.path, folder, image_fpr, output=output))
        except ValueError as error:
            raise ValueError(str(error).replace(str(folder), "What is known to be good")) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _image(self, index: int | None) -> Judged | None:
        # another window may have removed it
        return None if index is None or index >= len(self.session.images) else self.session.images[index]
