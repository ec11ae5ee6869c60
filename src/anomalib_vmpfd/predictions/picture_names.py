# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""File names of the pictures of one run: different images never share a name."""

import os
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from anomalib.utils.path import generate_output_filename

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class PictureNames:
    """Names by the source image, each used for one source only.

    A picture is named as anomalib's own visualizer names it: by the path below the folder of the data set or, where
    that is not part of the path, by the last folder and the file name. If this gives two images of the run one name, as
    for ``a/x/1.png`` and ``b/x/1.png``, or if no data set is named and they lie in several folders, all are named by
    their paths below the folder that they have in common.

    Args:
        folder (Path): Folder of the pictures.
        dataset (str | None, optional): Name of the data set. Defaults to ``None``.
        category (str | None, optional): Category of the data set. Defaults to ``None``.
        sources (Iterable[str | Path], optional): All images of the run that are known in advance. Where another image
            would get a name that is in use, it gets a longer path or a number. Defaults to ``()``.
        suffix (str | None, optional): Suffix of the files that are named. Defaults to ``None``: that of the image.
    """

    def __init__(
        self,
        folder: Path,
        dataset: str | None = None,
        category: str | None = None,
        sources: Iterable[str | Path] = (),
        suffix: str | None = None,
    ) -> None:
        self._folder = folder
        self._dataset = dataset
        self._category = category
        self._suffix = suffix
        self._source_by_name: dict[Path, Path] = {}
        by_path = {Path(source).absolute(): Path(source) for source in sources}
        self._common: Path | None = None
        folders = dataset is None and len({path.parent for path in by_path}) > 1
        if folders or len({self._default(source) for source in by_path.values()}) < len(by_path):
            self._common = _common_folder(by_path)

    def __call__(self, source: str | Path) -> Path:
        """Name the picture of an image.

        Args:
            source (str | Path): The image.

        Returns:
            Path: File below the folder; always the same for the same image.
        """
        path = Path(source).absolute()
        names = self._candidates(Path(source))
        if self._suffix is not None:
            names = (name.with_suffix(self._suffix) for name in names)
        return next(name for name in names if self._source_by_name.setdefault(name, path) == path)

    def _default(self, source: Path) -> Path:
        return generate_output_filename(source, self._folder, self._dataset, self._category, mkdir=False)

    def _candidates(self, source: Path) -> Iterator[Path]:
        path = source.absolute()
        if self._common is not None and path.is_relative_to(self._common):
            yield self._folder / path.relative_to(self._common)
        name = self._default(source)
        yield name
        parts = path.relative_to(path.anchor).parts
        for depth in range(3, len(parts) + 1):
            yield self._folder.joinpath(*parts[-depth:])
        for number in count(2):
            yield name.with_stem(f"{name.stem}_{number}")


def image_paths(trainer: "Trainer") -> list[str]:
    """List the images of the test or prediction in progress.

    Args:
        trainer (Trainer): Trainer that runs it.

    Returns:
        list[str]: Paths of the images of anomalib's data sets; other data sets do not tell theirs in advance.
    """
    loaders = getattr(
        trainer, "predict_dataloaders" if getattr(trainer, "predicting", False) else "test_dataloaders", None
    )
    paths: list[str] = []
    for loader in loaders if isinstance(loaders, (list, tuple)) else [loaders]:
        dataset = getattr(loader, "dataset", None)
        samples = getattr(dataset, "samples", None)
        if isinstance(samples, pd.DataFrame) and "image_path" in samples:
            paths += map(str, samples.image_path)
        else:
            # those of an earlier run too, or the files of a resumed one would be named by another rule
            paths += map(str, [*getattr(dataset, "finished", []), *getattr(dataset, "image_filenames", [])])
    return paths


def _common_folder(paths: Iterable[Path]) -> Path | None:
    try:
        return Path(os.path.commonpath([path.parent for path in paths]))
    except ValueError:  # on different drives
        return None
