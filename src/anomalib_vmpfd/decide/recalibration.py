# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Thresholds, quantiles, location and drift statistics of a checkpoint anew, from normal images of the line."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from anomalib.data import Batch, InferenceBatch, PredictDataset
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Resize
from tqdm import tqdm

from anomalib_vmpfd.engine.calibration import EXPECTED_ABOVE
from anomalib_vmpfd.engine.checkpoint_io import WholeCheckpointIO, read_whole
from anomalib_vmpfd.engine.deep_images import DeepCollate
from anomalib_vmpfd.engine.image_errors import ImageError, refuse_deep_images, unreadable
from anomalib_vmpfd.engine.normal_images import BATCH_SIZE
from anomalib_vmpfd.engine.rebuild import KEY
from anomalib_vmpfd.engine.region_of_interest import calibrate_inside
from anomalib_vmpfd.registration import load_trained

MIN_NORMALS = 20
RATES = ("image_fpr", "mask_fpr")


class Recalibration(NamedTuple):
    """What a recalibration changed.

    Attributes:
        output (Path): The new checkpoint.
        normals (int): Number of images.
        rates (dict[str, tuple[float, float]]): ``image_fpr`` and ``mask_fpr``, before and after.
        thresholds (dict[str, tuple[float, float]]): Image and pixel threshold of scores that are not normalised.
        alarms (dict[str, tuple[int, int]]): How many of the images are anomalous, or have any pixel in their mask,
            each judged as if it were new.
    """

    output: Path
    normals: int
    rates: dict[str, tuple[float, float]]
    thresholds: dict[str, tuple[float, float]]
    alarms: dict[str, tuple[int, int]]


def recalibrate(
    ckpt_path: Path,
    normals: Path,
    image_fpr: float | None = None,
    mask_fpr: float | None = None,
    output: Path | None = None,
) -> Recalibration:
    """Write a checkpoint whose scales, thresholds and drift are those of other normal images; nothing is trained.

    The images must be new to the model: scores of those that it learnt are too low.

    Args:
        ckpt_path (Path): Checkpoint of a model of this package; it stays as it is.
        normals (Path): Folder of normal images.
        image_fpr (float | None): False-positive rate for images. Defaults to ``None``: that of the checkpoint.
        mask_fpr (float | None): Share of normal images with any pixel in their mask. Defaults to ``None``: that of the
            checkpoint.
        output (Path | None): The new file. Defaults to ``None``: ``<name>-recalibrated.ckpt`` beside the old one.

    Returns:
        Recalibration: What changed.

    Raises:
        ValueError: If the checkpoint is of no model of this package or its thresholds are of another kind, a rate is
            not between 0 and 1, or the images are too few for it.
        FileExistsError: If the new file is there.
    """
    output = output or ckpt_path.with_name(f"{ckpt_path.stem}-recalibrated.ckpt")
    if output.exists():
        msg = f"{output} is there already and is left alone; give another --output, or move it away."
        raise FileExistsError(msg)
    model = load_trained(ckpt_path)
    checkpoint = read_whole(ckpt_path)
    post_processor = model.post_processor
    if getattr(post_processor, "threshold", None) != "normals":
        msg = f"The thresholds of {ckpt_path} do not come from normal images; train with threshold=normals."
        raise ValueError(msg)
    before = {rate: getattr(post_processor, rate) for rate in RATES}
    for rate, value in (("image_fpr", image_fpr), ("mask_fpr", mask_fpr)):
        if value is not None:
            post_processor.check_rate(rate, value)
            setattr(post_processor, rate, value)
    rates = {rate: (before[rate], getattr(post_processor, rate)) for rate in RATES}
    dataset = PredictDataset(normals, transform=None if model.input_size is None else Resize(tuple(model.input_size)))
    _check_number(normals, len(dataset), {rate: after for rate, (_, after) in rates.items()})
    thresholds = _thresholds(post_processor)
    alarms = _calibrate(model, _read(dataset, deep=getattr(model.pre_processor, "reads_deep", False)))
    checkpoint["state_dict"] = model.state_dict()
    checkpoint["anomalib_post_processor_config"] = post_processor.checkpoint_config()
    for rate, (_, after) in rates.items():
        if rate in checkpoint["hyper_parameters"]:
            checkpoint["hyper_parameters"][rate] = after
    checkpoint[KEY] = {**checkpoint[KEY], "recalibrated_on": len(dataset)}
    WholeCheckpointIO().save_checkpoint(checkpoint, output)
    after = _thresholds(post_processor)
    changed = {name: (value, after[name]) for name, value in thresholds.items()}
    return Recalibration(output, len(dataset), rates, changed, alarms)


def normals_needed(rate: float) -> int:
    """Fewest normal images for a false-positive rate.

    With so many, and scores whose tail is that of a Gumbel distribution, new normals exceed the threshold less than
    twice as often as the rate says, on average over samples.
    """
    return max(MIN_NORMALS, math.ceil(0.1 / rate))


def _check_number(folder: Path, count: int, rates: dict[str, float]) -> None:
    name, rate = min(rates.items(), key=lambda item: item[1])
    if count < normals_needed(rate):
        msg = (
            f"{folder} holds {count} images; {name}={rate:g} needs at least {normals_needed(rate)} normal ones, and "
            f"{math.ceil(EXPECTED_ABOVE / rate)} for a threshold that is not extrapolated."
        )
        raise ValueError(msg)


def _read(dataset: PredictDataset, deep: bool) -> Iterator[Batch]:
    """Batches of images; those that cannot be read are named."""
    if not deep:
        refuse_deep_images(dataset.image_filenames)
    collate = DeepCollate(dataset.collate_fn) if deep else dataset.collate_fn
    loader = DataLoader(dataset, batch_size=BATCH_SIZE, collate_fn=collate)
    try:
        yield from tqdm(loader, desc="Calibrating on normal images", leave=False)
    except Exception as error:
        if wrong := unreadable(dataset.image_filenames):
            named = ", ".join(f"{path} ({reason})" for path, reason in list(wrong.items())[:5])
            msg = f"{len(wrong)} of the images cannot be read: {named}. Replace or remove them."
            raise ImageError(msg) from error
        raise


@torch.no_grad()
def _calibrate(model: Any, batches: Iterator[Batch]) -> dict[str, tuple[int, int]]:  # noqa: ANN401
    """Calibrate a model in place; alarms among these images before and after."""
    post_processor = model.post_processor
    old: list[InferenceBatch] = []
    scores, peaks, statistics = [], [], []

    def observed() -> Iterator[Any]:
        for batch in batches:
            batch.image = model.pre_processor(batch.image) if model.pre_processor else batch.image
            statistics.append(model.drift.statistics(batch.image))
            seen = model.model(batch.image)
            judged = post_processor(seen._replace(anomaly_map=model.inside(seen.anomaly_map)))
            old.append(judged._replace(anomaly_map=None, pred_mask=judged.pred_mask.flatten(1).any(1)))
            yield model.observe(batch)

    def predicted() -> Iterator[InferenceBatch]:
        for prediction in model.calibrate(observed()):
            scores.append(prediction.pred_score.flatten())
            peaks.append(model.inside(prediction.anomaly_map).flatten(1).amax(1))
            yield prediction._replace(anomaly_map=model.inside(prediction.anomaly_map))

    calibrate_inside(model.model, getattr(model.pre_processor, "region", None))
    post_processor.calibrate(predicted())
    model.drift.fit_statistics(torch.cat(statistics))
    return {
        "image": (
            int(sum(judged.pred_label.sum() for judged in old)),
            int((torch.cat(scores) >= post_processor.image_threshold).sum()),
        ),
        "mask": (
            int(sum(judged.pred_mask.sum() for judged in old)),
            int((torch.cat(peaks) >= post_processor.pixel_threshold).sum()),
        ),
    }


def _thresholds(post_processor: Any) -> dict[str, float]:  # noqa: ANN401
    return {"image": float(post_processor.image_threshold), "pixel": float(post_processor.pixel_threshold)}
