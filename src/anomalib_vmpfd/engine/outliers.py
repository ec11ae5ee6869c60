# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Normal training images that score as defects do: perhaps they are none."""

import logging
import math
from collections.abc import Sequence

from torch import Tensor

logger = logging.getLogger(__name__)

FPR = 1e-3  # of a clean training set of a few hundred images none is named, as a rule
MOST_NAMED = 10


def outliers(scores: Tensor) -> Tensor:
    """Indices of scores beyond what the bulk of them allows, the largest first.

    The limit is the 99.9 % quantile of the Gumbel distribution that has the quartiles of the scores: they do not follow
    a few defects, as mean and variance would.

    Args:
        scores (Tensor): Scores of normal images as if they were new, ``(N,)``, not bounded.

    Returns:
        Tensor: Indices of the outliers.
    """
    first, median, third = (float(scores.quantile(q)) for q in (0.25, 0.5, 0.75))
    reduced = [-math.log(-math.log(q)) for q in (0.25, 0.5, 0.75, 1 - FPR)]
    scale = (third - first) / (reduced[2] - reduced[0])
    limit = median + scale * (reduced[3] - reduced[1])
    order = scores.argsort(descending=True)
    return order[scores[order] > limit]


def warn_of_outliers(scores: Tensor, paths: Sequence[str]) -> None:
    """Name training images that score far above the others.

    Args:
        scores (Tensor): Scores of normal images as if they were new, ``(N,)``, not bounded.
        paths (Sequence[str]): Their files.
    """
    found = outliers(scores).tolist()
    if not found:
        return
    named = "\n  ".join(paths[index] for index in found[:MOST_NAMED])
    more = f"\n  and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    logger.warning(
        f"{len(found)} of {len(scores)} training images score far above the others. If they show defects, take "
        f"them out and train again, as defects that are learnt are not found:\n  {named}{more}"
    )
