# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""``MVTec``, the short name of anomalib's MVTec AD datamodule."""

from difflib import get_close_matches

from anomalib.data import MVTecAD
from anomalib.data.datasets.image.mvtecad import CATEGORIES
from lightning.pytorch.trainer.states import TrainerFn


class MVTec(MVTecAD):
    """MVTec AD under the name that anomalib's command line had up to version 2.0: ``--data MVTec``.

    Arguments, folder layout and download are those of :class:`anomalib.data.MVTecAD`. The class's name is also the
    name of the folder for results: ``results/VmpfdAd/MVTec/<category>/``, where a run with ``--data MVTecAD`` has
    ``results/VmpfdAd/MVTecAD/<category>/``.

    Example:
        >>> from anomalib_vmpfd import MVTec
        >>> datamodule = MVTec(root="./datasets/MVTecAD", category="screw")
        >>> datamodule.name
        'MVTec'
    """

    def setup(self, stage: str | None = None) -> None:
        """Find the images.

        Raises:
            ValueError: If there is none to train on.
        """
        super().setup(stage)
        if stage == TrainerFn.FITTING and not len(self.train_data):
            msg = (
                f"{self.root / self.category / 'train' / 'good'} holds no images; put normal images there to train on."
            )
            raise ValueError(msg)

    def prepare_data(self) -> None:
        """Download the data where the category has no folder.

        Raises:
            ValueError: If there is neither such a folder nor such a category to download.
            OSError: If the download fails; names the folder that would spare it.
        """
        folder = self.root / self.category
        here = sorted(path.parent.name for path in self.root.glob("*/train"))
        if not folder.is_dir() and self.category not in CATEGORIES:
            close = get_close_matches(self.category, [*here, *CATEGORIES], 1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            msg = (
                f"There is no folder {folder}, and MVTec AD has no category {self.category!r}.{meant} Categories in "
                f"{self.root}: {', '.join(here) or 'none'}."
            )
            raise ValueError(msg)
        try:
            super().prepare_data()
        except OSError as error:
            msg = (
                f"There is no folder {folder}, and MVTec AD could not be downloaded ({error}). Give the folder that "
                "holds the categories as root, or put the data there."
            )
            raise OSError(msg) from error
