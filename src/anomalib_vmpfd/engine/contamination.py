# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Training images that do not belong: found by scores as if they were new, and left out."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .learnt_data import LearntImages

ROUNDS = 2  # defects that vouch for one another in the first are alone in the second

Fit = Callable[[LearntImages], None]
Scores = Callable[[LearntImages, LearntImages], tuple[Tensor, Tensor]]


def check_contamination(contamination: float, leaves_one_out: bool) -> None:
    """Refuse a share that is none, or a model that cannot judge what it learnt.

    Raises:
        ValueError: If so.
    """
    if not 0 <= contamination < 0.5:
        msg = f"contamination={contamination} is the share of training images to leave out: from 0 to below 0.5."
        raise ValueError(msg)
    if contamination and not leaves_one_out:
        msg = (
            "contamination needs a model that judges every image by what it learnt from the others: "
            "density='prototypes', reconstruction='components' (or one of them null) and held_out=0, as by default."
        )
        raise ValueError(msg)


def leave_out_contamination(
    learnt: LearntImages,
    contamination: float,
    scores: Scores,
    fit: Fit,
) -> tuple[LearntImages, list[int]]:
    """Learn from the images that score lowest.

    The images are scored, each by what was learnt from the others; those that score highest are left out, the model
    learns from the rest and all are scored again, as defects of one kind vouch for one another as long as they are
    learnt.

    Args:
        learnt (LearntImages): The images, from which the model has learnt.
        contamination (float): Share of them to leave out.
        scores (Scores): Gives image scores of learnt images, each as if it were new, and of images not learnt.
        fit (Fit): Learns from images anew.

    Returns:
        tuple[LearntImages, list[int]]: The images that stay, and the numbers of the others, the highest score first.
    """
    count = math.ceil(contamination * len(learnt))
    kept, out = learnt, learnt.only(learnt.numbers[:0])
    for _ in range(ROUNDS):
        numbers = torch.cat([kept.numbers, out.numbers])
        highest = torch.cat(scores(kept, out)).cpu().argsort(descending=True)[:count]
        out = learnt.only(numbers[highest])
        kept = learnt.only(learnt.numbers[~torch.isin(learnt.numbers, out.numbers)])
        fit(kept)
    return kept, out.numbers.tolist()
