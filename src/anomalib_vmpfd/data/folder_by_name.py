# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A folder of images whose masks are found by name."""

from typing import Any

from anomalib.data import Folder
from anomalib.data.utils import LabelName

from anomalib_vmpfd.engine.mask_pairs import mask_files, pair_by_name


class FolderByName(Folder):
    """anomalib's :class:`Folder`, but that the mask of an image is the one of its name.

    ``anomaly-1.png`` gets ``anomaly-1_mask.png``, ``anomaly-1.png`` or ``mask_anomaly-1.bmp``, where :class:`Folder`
    pairs images and masks by their positions in two sorted lists. All arguments are those of :class:`Folder`.

    Raises:
        MaskPairError: If an image with a defect has no mask, or shares it with another one; names them.

    Example:
        >>> from anomalib_vmpfd import FolderByName
        >>> data = FolderByName("my_parts", "good", root="my_parts", abnormal_dir="bad", mask_dir="mask")
    """

    mask_dir: Any

    def _setup(self, _stage: str | None = None) -> None:
        masks = mask_files(self) if self.mask_dir and self.abnormal_dir else []
        given, self.mask_dir = self.mask_dir, None
        try:
            super()._setup(_stage)
        finally:
            self.mask_dir = given
        samples = self.test_data.samples.copy()
        anomalous = samples.label_index == LabelName.ABNORMAL
        if masks and anomalous.any():
            samples.loc[anomalous, "mask_path"] = [str(m) for m in pair_by_name(samples.image_path[anomalous], masks)]
            self.test_data.samples = samples
            # both, or the task is lost where normal images are moved from one to the other
            for dataset in (self.train_data, self.test_data):
                dataset.samples.attrs["task"] = "segmentation"
