# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Thresholds, counts, errors and rows of the inspection page, without a model and without a page."""

from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from anomalib_vmpfd.engine.image_errors import ImageError
from anomalib_vmpfd.inspection.folder import images_of
from anomalib_vmpfd.inspection.histogram import BINS, histogram, limits
from anomalib_vmpfd.inspection.session import ORDERS, Session, Waiting
from anomalib_vmpfd.inspection.texts import summary, verdict

#        good  good  defect  defect  unknown
SCORES = (0.3, 0.55, 0.45, 0.7, 0.5)
KNOWN = (False, False, True, True, None)


def row(file: Path, name: str) -> dict:
    """Row of an image whose file name is its score."""
    if file.suffix == ".txt":
        msg = f"{file}: not an image."
        raise ImageError(msg)
    score = float(file.stem)
    return {"path": name, "score": score, "label": "", "threshold": 0.5, "drift": 2 * score, "regions": []}


@pytest.fixture
def session() -> Session:
    session = Session(row)
    session.waiting.extend(
        Waiting(Path(f"/temporary/{score}.png"), f"{score}.png", known)
        for score, known in zip(SCORES, KNOWN, strict=True)
    )
    while session.judge_next():
        pass
    return session


@pytest.mark.parametrize(
    ("threshold", "expected"),
    # normal, anomalous, good, false alarms, defects, missed; a score at the threshold is anomalous
    [(0.5, (2, 3, 2, 1, 2, 1)), (0.4, (1, 4, 2, 1, 2, 0)), (0.56, (4, 1, 2, 0, 2, 1)), (0.0, (0, 5, 2, 2, 2, 0))],
)
def test_counts_follow_the_threshold(session, threshold, expected):
    assert session.counts(threshold) == expected


def test_verdicts_are_those_of_float32(session):
    # what a model gives for 0.7 is less as a double, and anomalous at 0.7 all the same
    score = float(f"{np.float32(0.7):.9g}")
    assert score < 0.7
    session.images[3].row = {**session.images[3].row, "score": score}
    assert session.images[3].verdict(0.7)
    assert not session.images[3].verdict(float(np.nextafter(np.float32(0.7), np.float32(1))))


def test_orders_begin_with_what_is_worst(session):
    assert session.order("missed", 0.8) == [2, 3], "the lowest score of a defect first"
    assert session.order("false alarms", 0.2) == [1, 0], "the highest score of a good one first"
    assert session.order("missed", 0.5) == [2]
    assert session.order("score", 0.5) == [3, 1, 4, 2, 0]
    assert session.order("near", 0.47) == [2, 4, 1, 0, 3]
    assert session.order("marked", 0.5) == []
    assert session.order("added", 0.5) == [0, 1, 2, 3, 4]
    assert {"missed", "false alarms", "score", "near", "marked", "added"} == ORDERS.keys()


def test_a_mark_says_that_the_opposite_is_true(session):
    session.mark(4, threshold=0.5, wrong=True)  # judged anomalous, nothing was known
    assert session.counts(0.5) == (2, 3, 3, 2, 2, 1)
    assert session.counts(0.51).false_alarms == 1, "another threshold judges it rightly"
    assert session.order("marked", 0.5) == [4]
    session.mark(2, threshold=0.5, wrong=True)  # a defect by its folder, judged normal
    assert session.counts(0.5).defects == 2
    session.mark(4, threshold=0.5, wrong=False)
    assert session.images[4].truth is None


def test_rows_are_those_of_the_model_at_the_threshold(session):
    session.mark(4, 0.5, wrong=True)
    rows = session.rows(0.6)
    assert [each["label"] for each in rows] == ["normal", "normal", "normal", "anomalous", "normal"]
    assert {each["threshold"] for each in rows} == {0.6}
    assert [each["truth"] for each in rows] == ["normal", "normal", "anomalous", "anomalous", "normal"]
    assert [each["wrongly_judged"] for each in rows] == [False] * 4 + [True]
    assert list(rows[0])[:-2] == list(row(Path("0.1.png"), "0.1.png")), "the columns in their order"


def test_what_cannot_be_read_is_named_and_the_others_go_on():
    session = Session(row)
    session.waiting.extend(Waiting(Path(f"/temporary/{name}"), name) for name in ("0.1.png", "note.txt", "0.9.png"))
    while session.judge_next():
        pass
    assert [each.score for each in session.images] == [0.1, 0.9]
    assert session.refused == ["note.txt: not an image."], "by its name, not by where it was put"
    said = summary(session, 0.5)
    assert "1 file could not be judged" in said
    session.clear()
    assert "No images yet" in summary(session, 0.5)


def test_many_at_once_are_all_judged_once():
    session = Session(row)

    def upload(part: int) -> None:
        session.waiting.extend(Waiting(Path(f"/t/0.{part:03}{i}.png"), f"0.{part:03}{i}.png") for i in range(5))
        while session.judge_next():
            session.counts(0.5)

    threads = [Thread(target=upload, args=(part,)) for part in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each.row["path"] for each in session.images}) == len(session.images) == 500


def test_names_are_text_and_never_markup(session):
    session.images[0].row = {**session.images[0].row, "path": "<script>alert(1)</script>.png"}
    session.refused.append("<img src=x onerror=alert(1)>.txt: not an image.")
    for text in (summary(session, 0.5), verdict(session.images[0], 0.5)):
        assert "<script" not in text
        assert "<img" not in text


def test_a_verdict_says_what_was_missed_and_what_drifted(session):
    assert "missed" in verdict(session.images[2], 0.5)
    assert "false alarm" in verdict(session.images[1], 0.5)
    assert "false alarm" not in verdict(session.images[1], 0.6)
    assert "drift 1.4" in verdict(session.images[3], 0.5)
    assert "drift" not in verdict(session.images[2], 0.5)


def test_the_histogram_holds_every_image_and_its_threshold(session):
    ends = limits(session.images, 0.5)
    assert ends[0] < min(SCORES)
    assert ends[1] > max(SCORES)
    drawn = histogram(session.images, 0.5, ends)
    assert drawn.count("<rect") - 2 == len(SCORES), "each score has a bar of its own; two belong to the pattern"
    assert "2 good, 2 defects, 1 not known; threshold 0.5000" in drawn
    at = {t: histogram(session.images, t, ends).split('<line x1="')[1].split('"')[0] for t in ends}
    assert float(at[ends[1]]) - float(at[ends[0]]) == pytest.approx(320)
    assert BINS == 50
    assert "no images" in histogram([], 0.5, limits([], 0.5))


def test_labels_come_from_the_layout_of_a_data_set(tmp_path):
    for name in ("test/good/0.png", "test/dent/0.png", "ground_truth/dent/0.png", "train/good/1.png", "other/0.png"):
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).touch()
    found = {each.file.relative_to(tmp_path / "a").as_posix(): each.known for each in images_of(tmp_path / "a")}
    assert found == {"test/good/0.png": False, "test/dent/0.png": True, "train/good/1.png": False, "other/0.png": None}
    assert [each.known for each in images_of(tmp_path / "a" / "test" / "dent")] == [True], "a folder of it, too"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="Found 0 images"):
        list(images_of(tmp_path / "empty"))
