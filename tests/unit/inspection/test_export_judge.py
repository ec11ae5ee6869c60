# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""An export on the inspection page: its rows, its thresholds, and files that cannot be read.

The export is made by hand, a graph whose map is the brightness of the image, with the metadata of a real model.
"""

import io
import json
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import tiny
from anomalib_vmpfd.decide.threshold import save_threshold
from anomalib_vmpfd.engine.export_metadata import metadata, write_into_onnx
from anomalib_vmpfd.engine.image_errors import ImageError
from anomalib_vmpfd.inspection.judge import judge_of
from anomalib_vmpfd.inspection.reading import MAX_PIXELS


@pytest.fixture(scope="module")
def content() -> dict:
    """Metadata of a model of this package."""
    return metadata(tiny.model(), None)


@pytest.fixture
def export(content: dict, tmp_path: Path) -> Path:
    """``model.onnx`` and ``metadata.json``."""
    nodes = [
        helper.make_node("ReduceMean", ["image", "channel"], ["anomaly_map"], keepdims=1),
        helper.make_node("ReduceMax", ["anomaly_map"], ["pred_score"], keepdims=0),
        helper.make_node("GreaterOrEqual", ["pred_score", "half"], ["pred_label"]),
    ]
    constants = [
        helper.make_tensor("channel", TensorProto.INT64, [1], [1]),
        helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]),
    ]
    shape = [1, 3, "height", "width"]
    outputs = [
        helper.make_tensor_value_info("pred_score", TensorProto.FLOAT, []),
        helper.make_tensor_value_info("pred_label", TensorProto.BOOL, []),
        helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, [1, 1, "height", "width"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "brightness", [image], outputs, constants)
    path = tmp_path / "export" / "model.onnx"
    path.parent.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    write_into_onnx(path, content)
    return path


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """Grey, with a bright square."""
    pixels = np.full((40, 60, 3), 51, np.uint8)
    pixels[10:20, 30:40] = 204
    return tiny.save(tmp_path / "part.png", pixels)


def test_a_row_is_what_the_graph_says(export, part):
    row = judge_of(export).row(part, "a name")
    assert (row["path"], row["score"], row["label"], row["threshold"]) == ("a name", 0.800000012, "anomalous", 0.5)
    assert (row["width"], row["height"]) == (60, 40)
    (region,) = row["regions"]
    assert region["box"] == (30, 10, 40, 20)
    assert "drift" not in row
    assert judge_of(export).titles.keys() == {"anomaly_map"}
    view = judge_of(export).view(part)
    np.testing.assert_allclose(view.image[15, 35], 0.8, atol=1e-6)
    assert view.mask.sum() == 100


def test_a_chosen_threshold_goes_into_new_metadata(export, part, content):
    before = {path.name: path.read_bytes() for path in export.parent.iterdir()}
    new = save_threshold(export, 0.85)
    assert new.name == "metadata-threshold-0.8500.json"
    assert {name: (export.parent / name).read_bytes() for name in before} == before
    written = json.loads(new.read_text("utf-8"))
    assert written["thresholds"].pop("pred_score") == 0.85
    expected = json.loads(json.dumps(content))
    assert expected["thresholds"].pop("pred_score") == 0.5
    assert written == expected
    with pytest.raises(FileExistsError, match="is left alone"):
        save_threshold(export, 0.85)
    new.replace(export.with_name("metadata.json"))
    row = judge_of(export).row(part)
    assert (row["threshold"], row["label"]) == (0.85, "normal"), "the page begins with it"


@pytest.mark.parametrize("text", ['{"model": "other"}', "{", "[]"])
def test_metadata_of_another_export_are_refused(export, text):
    export.with_name("metadata.json").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=r"does not belong to model\.onnx"):
        judge_of(export)
    export.with_name("metadata.json").unlink()
    assert judge_of(export).threshold == 0.5, "those in the file"


def cut(path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(tiny.texture(0)).save(whole, "PNG")
    path.write_bytes(whole.getvalue()[:2000])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: path.write_bytes(b"no image"), "not an image"),
        (cut, "truncated|broken|image file"),
        (lambda path: tiny.save(path, np.full((8, 8), 3000, np.uint16)), "more than 8 bits"),
    ],
    ids=["text", "cut", "deep"],
)
def test_what_cannot_be_read_is_refused_in_words(export, tmp_path, write, reason):
    write(tmp_path / "wrong.png")
    with pytest.raises(ImageError, match=reason):
        judge_of(export).row(tmp_path / "wrong.png")


def test_too_many_pixels_are_refused_before_they_are_read(export, tmp_path):
    side = int(MAX_PIXELS**0.5) + 100
    Image.new("1", (side, side)).save(tmp_path / "large.png")
    start = time.perf_counter()
    with pytest.raises(ImageError, match="predict-tiles"):
        judge_of(export).row(tmp_path / "large.png")
    assert time.perf_counter() - start < 5
