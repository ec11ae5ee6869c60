# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""From a trained checkpoint to decisions: rows, files, thresholds. One training serves all."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.data import PredictDataset
from PIL import Image
from torchvision.io import decode_image

import tiny
from anomalib_vmpfd import PredictionFiles, VmpfdAd
from anomalib_vmpfd.cli import main
from anomalib_vmpfd.decide.recalibration import recalibrate
from anomalib_vmpfd.engine.post_processor import RankPreservingPostProcessor


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.with_defects(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def checkpoint(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runner = tiny.engine(tmp_path_factory.mktemp("trained"))
    model = VmpfdAd(image_size=(64, 64), density_args={"num_components": 64}, visualizer=False)
    runner.fit(model, datamodule=tiny.data(parts))
    return Path(runner.trainer.checkpoint_callback.best_model_path)


@pytest.fixture(scope="module")
def folder(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images to predict: of one name in several folders, and larger than the model's."""
    root = tmp_path_factory.mktemp("line")
    for index, name in enumerate(("a/x/1.png", "b/x/1.png", "2.png")):
        part = Image.open(parts / ("good_test" if name == "2.png" else "bad") / f"{index:03}.png")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        part.resize((160, 320), Image.Resampling.BICUBIC).save(root / name)
    return root


def run_test(parts: Path, checkpoint: Path, results: Path, *callbacks: PredictionFiles) -> None:
    runner = tiny.engine(results, callbacks=list(callbacks))
    runner.test(VmpfdAd(visualizer=False), datamodule=tiny.data(parts), ckpt_path=checkpoint, verbose=False)


def rows(results: Path) -> list[dict]:
    (path,) = results.rglob("predictions.jsonl")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def predict(folder: Path, checkpoint: Path, results: Path, *callbacks: PredictionFiles, **arguments) -> list:
    runner = tiny.engine(results, callbacks=list(callbacks))
    return runner.predict(VmpfdAd(**({"visualizer": False} | arguments)), data_path=folder, ckpt_path=checkpoint)


def test_a_prediction_leaves_a_row_a_mask_and_a_map_of_every_image(folder, checkpoint, tmp_path):
    seen = predict(folder, checkpoint, tmp_path, PredictionFiles("png", "tiff"), visualizer=True)
    written = rows(tmp_path)
    assert [row["path"] for row in written] == [path for batch in seen for path in batch.image_path]
    assert [row["score"] for row in written] == pytest.approx([float(batch.pred_score) for batch in seen], abs=1e-8)
    assert [row["label"] for row in written] == ["normal", "anomalous", "anomalous"]
    assert {(row["width"], row["height"], row["threshold"]) for row in written} == {(160, 320, 0.5)}
    for row, batch in zip(written, seen, strict=True):
        name = Path(row["path"]).relative_to(folder)
        (mask_file,) = tmp_path.rglob(f"masks/{name}")
        (map_file,) = tmp_path.rglob(f"maps/{name.with_suffix('.tiff')}")
        assert list(tmp_path.rglob(f"images/{name}"))
        mask, heat = np.asarray(Image.open(mask_file)), np.asarray(Image.open(map_file))
        assert mask.shape == heat.shape == (320, 160)
        assert set(np.unique(mask)) <= {0, 255}
        assert heat.dtype == np.float32
        assert heat.max() == pytest.approx(float(batch.anomaly_map.max()), abs=0.02)
        # nearest pixels: a pixel of the map is two or three columns wide
        assert sum(region["area"] for region in row["regions"]) == pytest.approx((mask > 0).sum(), rel=0.1)
        for region in row["regions"]:
            column, line = region["peak"]
            assert mask[line, column] == 255
            left, top, right, bottom = region["box"]
            assert mask[top:bottom, left:right].any()
    found = written[1]["regions"][0]
    # planted at 10 to 26 of 64 pixels
    assert 20 < found["peak"][0] < 70
    assert 40 < found["peak"][1] < 140
    (table,) = tmp_path.rglob("predictions.csv")
    read = pd.read_csv(table)
    assert read.score.tolist() == [row["score"] for row in written]
    assert [json.loads(each) for each in read.regions] == [row["regions"] for row in written]


def test_a_test_leaves_rows_too_and_says_how_many(parts, checkpoint, tmp_path, caplog):
    with caplog.at_level("INFO"):
        run_test(parts, checkpoint, tmp_path)
    written = rows(tmp_path)
    assert len(written) == 8
    anomalous = sum(row["label"] == "anomalous" for row in written)
    assert f"8 images: {8 - anomalous} normal, {anomalous} anomalous; rows in " in caplog.text


def test_a_resumed_prediction_reads_only_what_has_no_row(folder, checkpoint, tmp_path):
    predict(folder, checkpoint, tmp_path)
    (path,) = tmp_path.rglob("predictions.jsonl")
    complete = path.read_text("utf-8")
    path.write_text("".join(complete.splitlines(keepends=True)[:2]) + '{"path": "cut', "utf-8")
    seen = predict(folder, checkpoint, tmp_path, PredictionFiles(resume=True))
    assert [batch.image_path[0] for batch in seen] == [json.loads(complete.splitlines()[2])["path"]]
    assert path.read_text("utf-8") == complete
    assert len(pd.read_csv(path.with_suffix(".csv"))) == 3
    assert not predict(folder, checkpoint, tmp_path, PredictionFiles(resume=True)), "nothing is left"
    with pytest.raises(ValueError, match=r"rows of another model, or of other thresholds; leave out resume"):
        predict(
            folder,
            checkpoint,
            tmp_path,
            PredictionFiles(resume=True),
            post_processor=RankPreservingPostProcessor(image_sensitivity=0.7),
        )
    assert path.read_text("utf-8") == complete


def test_what_cannot_be_resumed_is_refused(parts, checkpoint, tmp_path):
    for use, message in (("test", "A test cannot be resumed"), ("predict", "Only predictions of a folder")):
        results = tmp_path / use
        run_test(parts, checkpoint, results)
        runner = tiny.engine(results, callbacks=[PredictionFiles(resume=True)])
        with pytest.raises(ValueError, match=message):
            getattr(runner, use)(VmpfdAd(visualizer=False), datamodule=tiny.data(parts), ckpt_path=checkpoint)
    with pytest.raises(ValueError, match="masks='jpg' is not written; give 'png'"):
        PredictionFiles(masks="jpg")


@pytest.fixture(scope="module")
def other_light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """New normal images in another light."""
    root = tmp_path_factory.mktemp("other_light")
    for index in range(24):
        tiny.save(root / f"{index}.png", 255 - tiny.texture(500 + index))
    return root


def test_recalibration_takes_scales_and_thresholds_from_new_normals(other_light, checkpoint, tmp_path, capsys):
    output = tmp_path / "new.ckpt"
    before = checkpoint.read_bytes()
    words = ["calibrate", "--ckpt_path", str(checkpoint), "--normals", str(other_light), "--image_fpr", "0.05"]
    assert main([*words, "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert checkpoint.read_bytes() == before

    old, new = (VmpfdAd.load_from_checkpoint(path).eval() for path in (checkpoint, output))
    images = torch.stack([decode_image(str(path)).float() / 255 for path in sorted(other_light.iterdir())])
    with torch.inference_mode():
        raw, was, now = new.model.score(images), old(images), new(images)
    assert was.pred_label.float().mean() > 0.5, "the light has changed too much for the old thresholds"
    assert now.pred_label.float().mean() <= 0.1
    for name, branch in new.model.branches.items():
        for each, scores in zip(branch.maps, raw[name], strict=True):
            np.testing.assert_allclose(each.quantiles, np.quantile(scores, (0.9, 0.995)), rtol=1e-4)
    assert (new.post_processor.image_fpr, new.post_processor.mask_fpr) == (0.05, 0.1)
    assert re.search(r"image_fpr +0.02 +0.05\nmask_fpr +0.1 +0.1\n", said)
    assert re.search(rf"anomalous +{int(was.pred_label.sum())} +\d+  of these 24 normal images", said)
    assert str(output) in said
    # what was learnt is as it was
    for (name, value), other in zip(new.state_dict().items(), old.state_dict().values(), strict=True):
        if "prototypes" in name or "components" in name or "network" in name:
            torch.testing.assert_close(value, other, rtol=0, atol=0)


def test_a_recalibrated_checkpoint_describes_itself(other_light, folder, checkpoint, tmp_path):
    output = recalibrate(checkpoint, other_light, mask_fpr=0.2, output=tmp_path / "new.ckpt").output
    assert len(predict(folder, output, tmp_path / "out", mask_fpr=0.2)) == 3
    with pytest.raises(ValueError, match=r"mask_fpr=0.3 was given, .* with 0.2.*anomalib-vmpfd calibrate"):
        predict(folder, output, tmp_path / "out", mask_fpr=0.3)
    again = recalibrate(output, other_light, output=tmp_path / "again.ckpt")
    assert again.rates == {"image_fpr": (0.02, 0.02), "mask_fpr": (0.2, 0.2)}
    for before, after in again.thresholds.values():
        assert after == pytest.approx(before, abs=1e-6), "the same normals, the same thresholds"


def test_what_a_user_sets_on_a_model_is_kept_or_refused_when_a_checkpoint_is_loaded(folder, checkpoint, tmp_path):
    model = VmpfdAd(visualizer=False)
    model.post_processor.image_sensitivity = 0.9
    tiny.engine(tmp_path / "a").predict(model, data_path=folder, ckpt_path=checkpoint)
    assert [row["threshold"] for row in rows(tmp_path / "a")] == pytest.approx([0.1] * 3)
    model = VmpfdAd(visualizer=False)
    model.post_processor.image_fpr = 0.3
    with pytest.raises(ValueError, match=r"image_fpr=0.3, the checkpoint's thresholds are for 0.02.*calibrate"):
        tiny.engine(tmp_path / "b").predict(model, data_path=folder, ckpt_path=checkpoint)


def test_the_own_command_takes_folders_of_any_name(folder, checkpoint, tmp_path, monkeypatch):
    place = shutil.copytree(folder, tmp_path / "Prüfteile" / "部品")
    monkeypatch.chdir(tmp_path)
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.logger", "false", "--trainer.accelerator", "cpu"]
    assert main(["predict", "--ckpt_path", str(checkpoint), "--data", str(place), *quiet]) == 0
    assert len(rows(tmp_path / "results")) == len(list(tmp_path.glob("results/**/images/**/*.png"))) == 3
    with pytest.raises(ValueError, match="non-printable"):
        PredictDataset(place)  # anomalib by itself is as ever
