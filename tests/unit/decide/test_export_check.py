# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The report on an export, and the exit status that a pipeline stops at."""

import json

import numpy as np
import pytest
from PIL import Image

from anomalib_vmpfd.decide import export_check
from anomalib_vmpfd.decide.runtimes import Answer, Exported


def by_brightness(threshold: float, scale: float = 1.0):
    """A model whose map is the brightness of the image."""

    def answer(image: np.ndarray) -> Answer:
        anomaly_map = scale * image.mean(0)
        return Answer(float(anomaly_map.max()), bool(anomaly_map.max() >= threshold), anomaly_map)

    return answer


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Runs the command on two pictures; returns its status and report."""
    (tmp_path / "parts" / "Prüf").mkdir(parents=True)
    for name, level in (("dark.png", 50), ("Prüf/bright.png", 200)):
        pixels = np.zeros((20, 30, 3), np.uint8)
        pixels[5:, :, 0] = level  # red: a reader that swaps channels is not caught by grey
        Image.fromarray(pixels).save(tmp_path / "parts" / name)

    def run(checkpoint, exported):
        exported.runtime, exported.precision, checkpoint.reads_deep = "a runtime", "f32", False
        monkeypatch.setattr(export_check, "Checkpoint", lambda _: checkpoint)
        monkeypatch.setattr(export_check, "Exported", lambda *_: exported)
        arguments = {
            "ckpt_path": "m.ckpt",
            "export": "m.onnx",
            "data": tmp_path / "parts",
            "output": tmp_path / "r.json",
        }
        status = export_check.main([f"--{name}={value}" for name, value in arguments.items()])
        return status, json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))

    return run


def test_the_same_verdicts_are_success(check, capsys):
    status, report = check(by_brightness(0.2), by_brightness(0.2, scale=1.01))
    assert status == 0
    assert report["images"] == 2
    for reader in ("Pillow", "OpenCV"):
        seen = report["readers"][reader]
        assert (seen["verdicts_differ"], seen["differing"]) == (0, [])
        assert seen["map_difference"] == pytest.approx(0.01, rel=1e-3)
        assert seen["score_difference"] == pytest.approx(0.01 * 200 / 255 / 3, rel=1e-3)
        assert report["latency_ms_median"][reader] > 0
    assert "0 verdicts differ" in capsys.readouterr().out


def test_another_verdict_is_named_and_fails(check, capsys):
    status, report = check(by_brightness(0.2), by_brightness(0.3))
    assert status == 1
    (path,) = report["readers"]["OpenCV"]["differing"]
    assert path.endswith("bright.png")
    assert path in capsys.readouterr().out
    row = next(row for row in report["rows"] if row["path"] == path)
    assert (row["checkpoint"]["label"], row["Pillow"]["label"]) == (True, False)


def test_what_cannot_be_compared_is_one_line(tmp_path, capsys):
    (tmp_path / "model.tflite").write_bytes(b"")
    for export, message in (("no.onnx", "There is no export"), ("model.tflite", "neither the .onnx file nor the .xml")):
        arguments = ["--ckpt_path", "m.ckpt", "--export", str(tmp_path / export), "--data", str(tmp_path)]
        assert export_check.main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_an_export_of_another_program_is_refused(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "other", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="has no output anomaly_map, pred_label, pred_score"):
        Exported(tmp_path / "other.onnx")
