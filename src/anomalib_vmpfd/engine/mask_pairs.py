# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Which mask belongs to which image, by their names."""

import re
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from anomalib.data import Folder, MVTecAD
from anomalib.data.utils.path import DirType, _prepare_files_labels, resolve_path
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback

SHOWN = 5


class MaskPairError(ValueError):
    """Masks that do not belong to their images; the message names them and the cure."""


def fits(image: str | Path, mask: str | Path) -> bool:
    """Whether a mask may be that of an image: its name holds the image's, and no number goes on before or behind.

    Example:
        >>> fits("bad/1.png", "mask/1_mask.png"), fits("bad/1.png", "mask/10_mask.png")
        (True, False)
    """
    stem = Path(image).stem
    before, behind = r"(?<!\d)" * stem[0].isdigit(), r"(?!\d)" * stem[-1].isdigit()
    return re.search(before + re.escape(stem) + behind, Path(mask).stem) is not None


def pair_by_name(images: Iterable[str | Path], masks: Iterable[str | Path]) -> list[Path]:
    """Find the mask of each image.

    Of several that fit, one in a folder of the image's name comes first, then the one with the shortest name.

    Args:
        images (Iterable[str | Path]): Images with a defect.
        masks (Iterable[str | Path]): Masks in any order.

    Returns:
        list[Path]: Masks in the order of the images.

    Raises:
        MaskPairError: If an image has no mask, or two images have the same.
    """
    of_defects, known = list(map(Path, images)), list(map(Path, masks))
    found: dict[Path, Path] = {}
    for image in of_defects:
        ranked = [((m.parent.name != image.parent.name, len(m.stem)), m) for m in known if fits(image, m)]
        if ranked:
            found[image] = min(ranked)[1]
    if missing := [str(image) for image in of_defects if image not in found]:
        msg = (
            f"{len(missing)} of {len(of_defects)} images with a defect have no mask of their name: {_listed(missing)}. "
            "Name each mask as its image."
        )
        raise MaskPairError(msg)
    owners: dict[Path, Path] = {}
    for image, mask in found.items():
        if mask in owners:
            msg = f"{mask} fits {owners[mask]} and {image}; give each image a mask of its own."
            raise MaskPairError(msg)
        owners[mask] = image
    return list(found.values())


class MaskPairs(Callback):
    """Refuses masks that belong to other images.

    anomalib pairs images and masks by their positions in two sorted lists, in which ``anomaly-10_mask.png`` comes
    before ``anomaly-1_mask.png``.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: PLR6301
        """Look at the pairs that anomalib made."""
        del pl_module, stage
        datamodule = getattr(trainer, "datamodule", None)
        datasets = [getattr(datamodule, f"{split}_data", None) for split in ("train", "val", "test")]
        _refuse_wrong(dict.fromkeys(pair for dataset in datasets for pair in _pairs_of(dataset)))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: PLR6301
        """Name the pairs where anomalib refuses them without a name."""
        del pl_module
        frames = traceback.walk_tb(exception.__traceback__)
        if any(frame.f_code.co_name in {"make_folder_dataset", "make_mvtec_ad_dataset"} for frame, _ in frames):
            try:
                images, masks = _files_of(getattr(trainer, "datamodule", None))
                if masks:
                    pair_by_name(images, masks)
                    _refuse_wrong(zip(images, masks, strict=False))
            except MaskPairError as error:
                raise error from exception
            except (OSError, RuntimeError):
                # folders are missing, as anomalib's own error says
                return


def mask_files(datamodule: Folder) -> list[str]:
    """Files in the folders of masks of a datamodule, sorted."""
    return _files(datamodule.mask_dir, datamodule.root)


def _refuse_wrong(pairs: Iterable[tuple[str, str]]) -> None:
    pairs = list(pairs)
    if wrong := [f"{image} with {mask}" for image, mask in pairs if not fits(image, mask)]:
        msg = (
            f"{len(wrong)} of {len(pairs)} images would get the mask of another one, as anomalib pairs two sorted "
            f"lists: {_listed(wrong)}. Take FolderByName in place of Folder (--data FolderByName), which pairs by name,"
            " or give images and masks numbers of one length."
        )
        raise MaskPairError(msg)


def _pairs_of(dataset: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401
    samples = getattr(dataset, "samples", None)
    if samples is not None and {"label_index", "mask_path"} <= set(samples):
        for image, mask, label in zip(samples.image_path, samples.mask_path, samples.label_index, strict=True):
            # some data sets have several masks an image
            if label == 1 and isinstance(mask, str) and mask:
                yield image, mask


def _files_of(datamodule: Any) -> tuple[list[str], list[str]]:  # noqa: ANN401
    """Images with a defect and masks of a datamodule, as anomalib sorts them."""
    if isinstance(datamodule, Folder) and datamodule.mask_dir and datamodule.abnormal_dir:
        return _files(datamodule.abnormal_dir, datamodule.root), mask_files(datamodule)
    if isinstance(datamodule, MVTecAD):
        folder = Path(datamodule.root) / datamodule.category
        defects = [path for path in (folder / "test").iterdir() if path.is_dir() and path.name != "good"]
        return _files(defects, None), _files([folder / "ground_truth"], None)
    return [], []


def _files(folders: str | Path | Sequence[str | Path], root: str | Path | None) -> list[str]:
    several = [folders] if isinstance(folders, (str, Path)) else folders
    names = [name for each in several for name in _prepare_files_labels(resolve_path(each, root), DirType.MASK)[0]]
    return sorted(map(str, names))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
