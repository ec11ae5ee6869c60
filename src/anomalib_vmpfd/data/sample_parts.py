# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The generated sample parts as a datamodule."""

from pathlib import Path

from anomalib.data import MVTecAD

from anomalib_vmpfd.data.sample import CATEGORY, make_sample


class SampleParts(MVTecAD):
    """Generated steel washers with scratches, dents and broken edges; written where they are missing.

    Args:
        root (Path | str, optional): Folder in which ``washer`` is created. Defaults to ``"./datasets/sample"``.
        **kwargs: The other arguments of :class:`anomalib.data.MVTecAD`.

    Example:
        >>> from anomalib_vmpfd import SampleParts
        >>> datamodule = SampleParts(num_workers=0)
        >>> datamodule.prepare_data()  # doctest: +SKIP
    """

    def __init__(self, root: Path | str = "./datasets/sample", **kwargs) -> None:
        super().__init__(root=root, category=CATEGORY, **kwargs)

    def prepare_data(self) -> None:
        """Write the sample parts if they are missing."""
        make_sample(self.root)
