# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What the page says of all images and of one, as HTML."""

from pathlib import Path

from markupsafe import Markup

from anomalib_vmpfd.predictions.rows import LABELS

from .session import Counts, Judged, Session

SHOWN = 20


def summary(session: Session, threshold: float) -> Markup:
    """Say how many images are judged how, how many wait, and which could not be read."""
    counts = session.counts(threshold)
    if not (session.images or session.waiting or session.refused):
        return Markup('<div role="status" class="counts">No images yet.</div>')
    lines = [Markup("<p><strong>{}</strong> normal, <strong>{}</strong> anomalous</p>").format(*counts[:2])]
    lines += [Markup("<p>{}</p>").format(each) for each in _errors(counts)]
    if waiting := len(session.waiting):
        lines.append(Markup("<p>{} more are being judged …</p>").format(waiting))
    if session.refused:
        shown = Markup().join(Markup("<li>{}</li>").format(each) for each in session.refused[-SHOWN:])
        lines.append(
            Markup('<p class="refused">{} could not be judged:</p><ul>{}</ul>').format(
                _files(len(session.refused)), shown
            )
        )
    return Markup('<div role="status" class="counts">{}</div>').format(Markup().join(lines))


def verdict(image: Judged | None, threshold: float) -> Markup:
    """Say what one image is judged, and what is known of it."""
    if image is None:
        return Markup('<div class="verdict" role="status">No image to show.</div>')
    found = image.verdict(threshold)
    parts = [
        Markup('<strong class="{0}">{0}</strong>').format(LABELS[found]),
        Markup("score {:.4f}, threshold {:.4f}").format(image.score, threshold),
    ]
    if image.truth is not None:
        by = "marked as" if image.said is not None else "known to be"
        wrong = {(True, False): ": a false alarm", (False, True): ": missed"}.get((found, image.truth), "")
        parts.append(Markup("{} {}{}").format(by, LABELS[image.truth], wrong))
    if (drift := image.row.get("drift", 0)) > 1:
        parts.append(
            Markup("light or focus unlike those of training (drift {:.1f}): the threshold may not hold").format(drift)
        )
    return Markup('<div class="verdict" role="status"><p class="name">{}</p><p>{}</p></div>').format(
        Path(*Path(image.row["path"]).parts[-3:]).as_posix(), Markup(" · ").join(parts)
    )


def _errors(counts: Counts) -> list[str]:
    lines = []
    if counts.defects:
        lines.append(f"{counts.missed} of {counts.defects} defects missed")
    if counts.good:
        lines.append(f"{counts.false_alarms} of {counts.good} good ones are false alarms")
    return lines


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
