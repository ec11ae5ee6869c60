# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Images of a folder, with labels where its layout is one of anomalib's data sets."""

from collections.abc import Iterator
from pathlib import Path

from anomalib.data.utils.image import get_image_filenames_from_dir

from .session import Waiting

GOOD, MASKS = "good", "ground_truth"


def images_of(folder: Path) -> Iterator[Waiting]:
    """Find images to judge, also in folders below; those in ``ground_truth`` are masks.

    An image in a folder ``good`` is normal, one in another folder beside a ``good`` is anomalous, as in anomalib's
    data sets; nothing is known of others.

    Args:
        folder (Path): The folder.

    Yields:
        Waiting: Images with their paths as names.

    Raises:
        ValueError: If there is no such folder, or no image in it.
    """
    for file in get_image_filenames_from_dir(folder):
        if MASKS not in file.relative_to(folder).parts[:-1]:
            yield Waiting(file, str(file), _label(file))


def _label(file: Path) -> bool | None:
    parent = file.resolve().parent
    if parent.name == GOOD:
        return False
    return True if (parent.parent / GOOD).is_dir() else None
