# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""From a trained checkpoint to decisions: rows, files, thresholds. One training serves all."""

import json
import re
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from anomalib.data import ImageBatch, PredictDataset
from PIL import Image
from torchvision.io import decode_image

import tiny
from anomalib_vmpfd import PredictionFiles, VmpfdAd
from anomalib_vmpfd.cli import main
from anomalib_vmpfd.decide.recalibration import recalibrate
from anomalib_vmpfd.engine.image_errors import ImageError
from anomalib_vmpfd.engine.post_processor import RankPreservingPostProcessor


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.with_defects(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def checkpoint(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runner = tiny.engine(tmp_path_factory.mktemp("trained"))
    model = VmpfdAd(image_size=(64, 64), density_args={"num_components": 64}, image_fpr=0.02, visualizer=False)
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


def test_after_a_recalibration_the_new_light_is_usual_and_the_old_one_is_not(other_light, checkpoint, tmp_path, caplog):
    output = recalibrate(checkpoint, other_light, output=tmp_path / "new.ckpt").output
    tiny.save(tmp_path / "new" / "1.png", 255 - tiny.texture(900))
    tiny.save(tmp_path / "old" / "1.png", tiny.texture(900))
    drift = {}
    for model, light in product((checkpoint, output), ("new", "old")):
        caplog.clear()
        results = tmp_path / f"{model.stem}-{light}"
        predict(tmp_path / light, model, results)
        (row,) = rows(results)
        drift[model, light] = row["drift"]
        assert ("1 of 1 images differ in brightness" in caplog.text) == (row["drift"] > 1)
    assert drift[checkpoint, "new"] > 1 > drift[checkpoint, "old"]
    assert drift[output, "old"] > 1 > drift[output, "new"]


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


@pytest.fixture(scope="module")
def in_region(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a model that looks at the upper left 40 x 40 of 64 pixels."""
    root = tmp_path_factory.mktemp("region")
    region = np.zeros((64, 64), np.uint8)
    region[:40, :40] = 255
    model = VmpfdAd(
        image_size=(64, 64),
        density_args={"num_components": 64},
        visualizer=False,
        roi=str(tiny.save(root / "roi.png", region)),
    )
    runner = tiny.engine(root)
    runner.fit(model, datamodule=tiny.data(parts))
    (root / "roi.png").unlink()  # the checkpoint has it
    return Path(runner.trainer.checkpoint_callback.best_model_path)


def test_nothing_outside_the_region_of_interest_is_seen(in_region, parts):
    model = VmpfdAd.load_from_checkpoint(in_region).eval()
    images = torch.stack([decode_image(str(parts / "bad" / f"{i:03}.png")).float() / 255 for i in range(4)])
    changed = images.clone()
    changed[:, :, 40:, :] = torch.rand(3, 24, 64)
    changed[:, :, :, 40:] = torch.rand(3, 64, 24)
    with torch.inference_mode():
        seen, other = model(images), model(changed)
        panels = model.explain(changed)
    for name in ("pred_score", "anomaly_map", "pred_label", "pred_mask"):
        torch.testing.assert_close(getattr(seen, name), getattr(other, name), rtol=0, atol=0)
    assert seen.anomaly_map[:, :, 41:].max() == seen.anomaly_map.min() < 0.5
    assert not seen.pred_mask[..., 41:].any()
    assert not panels["tam"][..., 41:].any()
    # defects at 10 to 26 and 18 to 34 lie inside, the last one, at 34 to 50, hardly
    assert seen.pred_label[:2].all()


def test_maps_take_their_scale_from_the_region_of_interest_alone(in_region, other_light, tmp_path):
    """Of a recalibration, whose scores are those that the model gives: each inside pixel counts its nearest cell."""
    output = recalibrate(in_region, other_light, output=tmp_path / "new.ckpt").output
    model = VmpfdAd.load_from_checkpoint(output).eval()
    images = torch.stack([decode_image(str(path)).float() / 255 for path in sorted(other_light.iterdir())])
    with torch.inference_mode():
        raw = model.model.score(model.pre_processor(images))
    inside = model.pre_processor.region[0, 0].nonzero().numpy()
    outside = 0
    for name, branch in model.model.branches.items():
        for each, scores in zip(branch.maps, raw[name], strict=True):
            centres = [axis.first + axis.stride * np.arange(axis.cells) for axis in each.grid]
            counted = {tuple(np.abs(c - p).argmin() for c, p in zip(centres, pixel, strict=True)) for pixel in inside}
            values = np.stack([scores[:, line, column] for line, column in counted])
            np.testing.assert_allclose(each.quantiles, np.quantile(values, (0.9, 0.995)), rtol=1e-4)
            outside += scores[0].numel() - len(counted)
    assert outside > 10


def test_a_region_of_interest_goes_with_checkpoint_test_and_export(in_region, parts, tmp_path):
    model, runner = VmpfdAd(visualizer=False), tiny.engine(tmp_path)
    data = tiny.data(parts)
    runner.test(model, datamodule=data, ckpt_path=in_region, verbose=False)
    labels = {row["path"]: row["label"] for row in rows(tmp_path)}
    images = torch.stack([decode_image(path).float() / 255 for path in labels])
    with torch.inference_mode():
        expected = model.eval()(images)
    assert list(labels.values()) == ["anomalous" if label else "normal" for label in expected.pred_label]
    exported = model.to_onnx(tmp_path)
    session = onnxruntime.InferenceSession(exported)
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, {session.get_inputs()[0].name: images.numpy()}), strict=True))
    np.testing.assert_allclose(found["anomaly_map"], expected.anomaly_map, atol=1e-3)
    np.testing.assert_allclose(found["pred_score"].ravel(), expected.pred_score.ravel(), atol=1e-3)


def test_a_defect_outside_the_region_is_none_in_a_test(in_region):
    model = VmpfdAd.load_from_checkpoint(in_region)
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    masks[0, 5:9, 5:9] = masks[1, 50:60, 50:60] = True
    labels = torch.tensor([True, True, True])
    batch = ImageBatch(image=torch.rand(3, 3, 64, 64), gt_mask=masks, gt_label=labels)
    model.pre_processor.on_test_batch_start(None, model, batch, 0)
    assert batch.gt_label.tolist() == [True, False, True], "the last one has no mask at all"
    assert batch.gt_mask.flatten(1).sum(1).tolist() == [16, 0, 0]


def deep_parts(source: Path, root: Path) -> Path:
    """The same parts in 16 bits: 8-bit values v as 2000 + 40 v."""
    for path in source.rglob("*.png"):
        pixels = np.asarray(Image.open(path))
        if path.parent.name != "mask":
            pixels = 2000 + 40 * pixels[..., 0].astype(np.uint16)
        tiny.save(root / path.relative_to(source), pixels)
    return root


def test_a_window_makes_16_bit_images_what_they_are_in_8_bits(parts, tmp_path):
    deep, shallow = deep_parts(parts, tmp_path / "deep"), tmp_path / "shallow"
    for path in parts.rglob("*.png"):
        pixels = np.asarray(Image.open(path))
        tiny.save(shallow / path.relative_to(parts), pixels if pixels.ndim == 2 else pixels[..., :1].repeat(3, 2))
    seen = {}
    for root, window in ((deep, (2000, 2000 + 40 * 255)), (shallow, None)):
        model = VmpfdAd(image_size=(64, 64), density_args={"num_components": 64}, visualizer=False, window=window)
        runner = tiny.engine(tmp_path / f"{root.name}-out")
        runner.fit(model, datamodule=tiny.data(root))
        checkpoint = Path(runner.trainer.checkpoint_callback.best_model_path)
        batches = predict(root / "bad", checkpoint, tmp_path / f"{root.name}-again")
        seen[root.name] = torch.cat([batch.pred_score for batch in batches])
        if window:
            loaded = VmpfdAd.load_from_checkpoint(checkpoint).eval()
            image = torch.from_numpy(np.asarray(Image.open(root / "bad" / "000.png")).astype(np.float32) / 65535)
            exported = loaded.to_onnx(tmp_path)
            words = ["--ckpt_path", str(checkpoint), "--export", str(exported), "--data", str(root / "bad")]
            assert main(["check-export", *words]) == 0
            for judge in (checkpoint, exported):
                words = ["--model", str(judge), "--data", str(root / "bad"), "--output", str(tmp_path / "tiles")]
                assert main(["predict-tiles", *words]) == 0
                in_tiles = [row["score"] for row in rows(tmp_path / "tiles")]
                assert in_tiles == pytest.approx(seen["deep"].tolist(), abs=1e-3), "each is one tile"
    torch.testing.assert_close(seen["deep"], seen["shallow"], rtol=1e-3, atol=1e-3)
    assert seen["deep"].min() > 0.5
    session = onnxruntime.InferenceSession(exported)
    (score,) = session.run(["pred_score"], {session.get_inputs()[0].name: image.expand(1, 3, -1, -1).numpy()})
    assert score.item() == pytest.approx(float(seen["deep"][0]), abs=1e-3)
    with pytest.raises(ImageError, match=r"8 bits a channel, but .* model sees images of 16 bits"):
        predict(shallow / "bad", next((tmp_path / "deep-out").rglob("model.ckpt")), tmp_path / "wrong")
