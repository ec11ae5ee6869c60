# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""``Folder`` with fewer normal images, or with defects among them, for studies of both."""

from typing import Any

import torch

from anomalib_vmpfd.data.few_defects import FewDefects


class ReducedFolder(FewDefects):
    """anomalib's ``Folder``, trained on some of its normals, and on defects that are taken for normals.

    A draw of fewer images is the beginning of a draw of more with the same seed.

    Args:
        normals (int | None): Number of normal training images. Defaults to ``None``: all.
        pollution (float): Share of the training images that show defects and are labelled normal. They are taken out of
            the test. Defaults to ``0``.
        removed_defects (int): Number of defective images to leave out of the test, so that shares are compared on the
            same test images. Defaults to ``0``.
        val_split_mode (str): As that of :class:`FewDefects`. Defaults to ``"none"``.
        **kwargs: The other arguments of :class:`FewDefects`.

    Raises:
        ValueError: If the folder has too few images for what is asked.
    """

    def __init__(
        self,
        normals: int | None = None,
        pollution: float = 0.0,
        removed_defects: int = 0,
        val_split_mode: str = "none",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(
            known_defects=0,
            removed_defects=removed_defects,
            val_split_mode=val_split_mode,
            **kwargs,
        )
        if (normals is not None and normals < 1) or not 0 <= pollution < 1:
            msg = f"normals={normals} must be at least 1, and pollution={pollution} at least 0 and below 1."
            raise ValueError(msg)
        self.normals = normals
        self.pollution = pollution

    def _create_test_split(self) -> None:
        if self.normals is not None:
            if self.normals > len(self.train_data):
                msg = f"normals={self.normals}, and {self.name} has {len(self.train_data)}; give fewer."
                raise ValueError(msg)
            order = torch.randperm(len(self.train_data), generator=torch.Generator().manual_seed(self.seed)).tolist()
            self.train_data = self.train_data.subsample(sorted(order[: self.normals]))
        super(FewDefects, self)._create_test_split()
        defects = round(len(self.train_data) * self.pollution / (1 - self.pollution))
        if defects > self.removed_defects:
            msg = f"pollution={self.pollution} takes {defects} defects; give removed_defects={defects} or more."
            raise ValueError(msg)
        taken = self._taken_out_of_test(defects)
        if taken is not None:
            samples = taken.samples.copy()
            samples["label_index"], samples["mask_path"] = 0, ""
            taken.samples = samples
            self.train_data += taken
        self._check_leaks()
