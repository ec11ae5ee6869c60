# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Predictions that are killed keep their rows."""

import json
import signal
import time
from pathlib import Path

from processes import CONTEXT, kill_at

import tiny


def predict(images: Path, checkpoint: Path, results: Path, mark: Path, resume: bool) -> None:
    """Predict, and leave ``mark`` and linger after the third image."""
    from lightning.pytorch import Callback

    from anomalib_vmpfd import PredictionFiles

    class Watch(Callback):
        def on_predict_batch_start(self, *arguments) -> None:
            if arguments[3] == 3 and not resume:
                mark.touch()
                time.sleep(60)

    runner = tiny.engine(results, callbacks=[Watch(), PredictionFiles(resume=resume)])
    runner.predict(tiny.model(), data_path=images, ckpt_path=checkpoint)


def test_a_killed_prediction_keeps_its_rows_and_goes_on(parts, tmp_path, case):
    runner = tiny.engine(tmp_path / "trained")
    runner.fit(tiny.model(), datamodule=tiny.data(parts))
    checkpoint = Path(runner.trainer.checkpoint_callback.best_model_path)
    mark, results = tmp_path / "mark", tmp_path / "out"
    arguments = parts / "good", checkpoint, results, mark
    process = CONTEXT.Process(target=predict, args=(*arguments, False))
    process.start()
    kill_at(mark, process, signal.SIGKILL)
    (path,) = results.rglob("predictions.jsonl")
    kept = path.read_text("utf-8")
    assert len(kept.splitlines()) == len(path.with_suffix(".csv").read_text("utf-8").splitlines()) - 1 == 3
    predict(*arguments, resume=True)
    complete = path.read_text("utf-8")
    assert complete.startswith(kept)
    assert [Path(json.loads(line)["path"]).name for line in complete.splitlines()] == [f"{i:03}.png" for i in range(12)]
    case(
        "SIGKILL in mid-prediction",
        "the rows of the judged images stay; with resume the others are added",
        f"exit {process.exitcode}, 3 of 12 rows, then 12",
        "yes",
    )
