# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""``Folder`` with a few known defects in the training data."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from anomalib.data import AnomalibDataset, Folder
from anomalib.data.utils import TestSplitMode, ValSplitMode

WITHOUT_DEFECTS = (ValSplitMode.NONE, ValSplitMode.FROM_TRAIN, ValSplitMode.SYNTHETIC)


class FewDefects(Folder):
    """anomalib's ``Folder``, of which a few defective test images with masks are learnt, and no longer tested.

    The defects are drawn from all kinds together; a draw of fewer is the beginning of a draw of more. They are labelled
    anomalous in the training data, for models that learn defects, as :class:`Prn`; other models are refused, unless
    ``known_defects=0``. Validation and thresholds see normals alone.

    ``*`` in ``abnormal_dir`` stands for every folder there but ``normal_test_dir``, and in ``mask_dir`` for the same
    names, as in the layout of MVTec AD: ``abnormal_dir="test/*"``, ``mask_dir="ground_truth/*"``.

    Args:
        known_defects (int): Number ``k`` of defective test images to train on. Defaults to ``10``.
        removed_defects (int | None): Number of defective images to leave out of the test, at least as many, so that
            different numbers of known defects are compared on the same test images. Defaults to ``None``: as many as
            are known.
        val_split_mode (ValSplitMode | str): ``"from_train"``, ``"synthetic"`` or ``"none"``. Defaults to
            ``"from_train"``.
        val_split_ratio (float): Share of the normal training images for validation. Defaults to ``0.1``.
        seed (int): Seed of the draw and of the splits. Defaults to ``0``.
        **kwargs: The other arguments of :class:`anomalib.data.Folder`.

    Raises:
        ValueError: If test images could be learnt or calibrated on, or an argument does not fit the data.

    Example:
        >>> from anomalib_vmpfd import FewDefects
        >>> data = FewDefects(
        ...     name="my_parts",
        ...     root="datasets/my_parts",
        ...     normal_dir="train/good",
        ...     normal_test_dir="test/good",
        ...     abnormal_dir="test/defect",
        ...     mask_dir="ground_truth/defect",
        ...     known_defects=5,
        ... )
    """

    abnormal_dir: Any
    mask_dir: Any
    train_data: AnomalibDataset
    test_data: AnomalibDataset

    def __init__(
        self,
        known_defects: int = 10,
        removed_defects: int | None = None,
        val_split_mode: ValSplitMode | str = ValSplitMode.FROM_TRAIN,
        val_split_ratio: float = 0.1,
        seed: int = 0,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(val_split_mode=val_split_mode, val_split_ratio=val_split_ratio, seed=seed, **kwargs)
        self.known_defects = known_defects
        self.removed_defects = known_defects if removed_defects is None else removed_defects
        self._known: AnomalibDataset | None = None
        self._check_arguments()

    def _check_arguments(self) -> None:
        if not 0 <= self.known_defects <= self.removed_defects:
            msg = (
                f"known_defects={self.known_defects} must lie between 0 and removed_defects={self.removed_defects}: "
                "what is learnt must not be tested."
            )
            raise ValueError(msg)
        if self.seed is None:
            msg = "FewDefects needs a seed: without one the next run would test on defects that this one learns."
            raise ValueError(msg)
        if self.val_split_mode not in WITHOUT_DEFECTS:
            msg = (
                f"val_split_mode={self.val_split_mode.value!r} would set thresholds by test images; give 'from_train', "
                "'synthetic' or 'none'."
            )
            raise ValueError(msg)
        if self.test_split_mode != TestSplitMode.FROM_DIR or not self.abnormal_dir:
            msg = "FewDefects takes its defects out of abnormal_dir; give it, and test_split_mode='from_dir'."
            raise ValueError(msg)
        if self.known_defects and not self.mask_dir:
            msg = "FewDefects needs mask_dir: what is learnt of a defect is where it is."
            raise ValueError(msg)

    def setup(self, stage: str | None = None) -> None:
        """Find the images.

        Raises:
            ValueError: If the model that is trained would learn defects as normals.
        """
        super().setup(stage)
        model = getattr(self.trainer, "lightning_module", None)
        if self.known_defects and model is not None and not getattr(model, "learns_defects", False):
            msg = (
                f"{type(model).__name__} learns from normal images alone, and the training data hold "
                f"{self.known_defects} known defects; give known_defects=0, and removed_defects={self.removed_defects} "
                "to test it on the same images."
            )
            raise ValueError(msg)

    def _setup(self, _stage: str | None = None) -> None:
        if "*" in str(self.abnormal_dir):
            root = Path(self.root or "")
            good = root / str(self.normal_test_dir)
            kinds = sorted(path for path in root.glob(str(self.abnormal_dir)) if path.is_dir() and path != good)
            if not kinds:
                msg = f"There is no folder {root / str(self.abnormal_dir)}; give the folders of the defects."
                raise ValueError(msg)
            # Folder itself puts the root before them
            self.mask_dir = [str(self.mask_dir).replace("*", path.name) for path in kinds] if self.mask_dir else None
            self.abnormal_dir = [str(path.relative_to(root)) for path in kinds]
        super()._setup(_stage)

    def _create_test_split(self) -> None:
        super()._create_test_split()
        self._known = self._taken_out_of_test(self.known_defects)
        self._check_leaks()

    def _taken_out_of_test(self, count: int) -> AnomalibDataset | None:
        """Remove ``removed_defects`` from the test; gives the first ``count`` of them."""
        removed = self.removed_defects
        samples = self.test_data.samples
        defects = samples.index[samples.label_index == 1].tolist()
        if removed and len(defects) <= removed:
            msg = (
                f"{removed} of {len(defects)} defective images are to be left out of the test, and none would remain; "
                "give fewer, or more images."
            )
            raise ValueError(msg)
        order = torch.randperm(len(defects), generator=torch.Generator().manual_seed(self.seed)).tolist()
        drawn = [defects[position] for position in order[:removed]]
        taken = self.test_data.subsample(drawn[:count]) if count else None
        self.test_data = self.test_data.subsample([index for index in samples.index if index not in set(drawn)])
        return taken

    def _create_val_split(self) -> None:
        super()._create_val_split()
        if self._known is not None:
            # after the split, which must hold normals alone
            self.train_data += self._known

    def _check_leaks(self) -> None:
        """Refuse test images that are also learnt, be it as a copy of a known defect."""
        tested = self.test_data.samples.image_path.tolist()
        if both := sorted(set(tested) & set(self.train_data.samples.image_path)):
            msg = f"{both[0]} is a training and a test image; give folders that have no image in common."
            raise ValueError(msg)
        known = [] if self._known is None else self._known.samples.image_path.tolist()
        contents = {_content(path): path for path in known}
        sizes = {Path(path).stat().st_size for path in known}
        for path in tested:
            if Path(path).stat().st_size in sizes and (original := contents.get(_content(path))):
                msg = f"The test image {path} is a copy of {original}, a known defect; remove one of the two."
                raise ValueError(msg)


def _content(path: str) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()
