# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Exports of every model through anomalib's engine answer as the model does, in all of its inferencers."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from anomalib.data.utils import read_image
from anomalib.deploy import CompressionType, OpenVINOInferencer, TorchInferencer
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.decide.export_check import main as check_export
from anomalib_vmpfd.decide.low_precision import in_low_precision
from anomalib_vmpfd.decide.tiles_command import predict_tiles
from anomalib_vmpfd.inspection.judge import ExportJudge
from anomalib_vmpfd.processor import has_bf16

OUTPUTS = ("anomaly_map", "pred_score", "pred_label")
EXACT = 1e-5  # of the range of a map


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """Folder for exports, files of test images, their pixels before any resize and what ``Engine.predict`` says."""
    files = next(iter(trained.data.test_dataloader())).image_path
    images = torch.stack([read_image(path, as_tensor=True) for path in files])
    assert min(images.shape[-2:]) > 64, "the resize takes part"
    expected = {name: value[: len(files)].numpy() for name, value in trained.predictions.items()}
    assert np.ptp(expected["pred_score"]) > 0
    return trained, tmp_path_factory.mktemp("export"), files, images, expected


def agree(answers, expected, index: slice = slice(None)) -> None:
    """The map within a thousandth of its range, and the same verdicts."""
    maps, scores, labels = (np.asarray(answer) for answer in answers)
    wanted = expected["anomaly_map"]
    assert np.abs(maps.reshape(wanted[index].shape) - wanted[index]).max() < 1e-3 * np.ptp(wanted)
    np.testing.assert_allclose(scores.ravel(), expected["pred_score"][index].ravel(), atol=1e-3)
    assert (labels.ravel() == expected["pred_label"][index].ravel()).all()


def agree_on_files(inferencer, files, expected) -> None:
    """An inferencer reads the first and the last of the files itself."""
    for index in (0, len(files) - 1):
        with torch.inference_mode():
            seen = inferencer.predict(files[index])
        agree([getattr(seen, name) for name in OUTPUTS], expected, slice(index, index + 1))


def test_torch(exported, monkeypatch):
    trained, folder, files, images, expected = exported
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    inferencer = TorchInferencer(trained.engine.export(trained.model, "torch", folder), device="cpu")
    with torch.inference_mode():
        seen = inferencer.model(images)
    agree([getattr(seen, name) for name in OUTPUTS], expected)
    agree_on_files(inferencer, files, expected)


@pytest.fixture(scope="module")
def onnx_export(exported):
    """The ONNX export, alone in its folder with what is written beside it, and what was logged of it."""
    trained, folder, *_ = exported
    records: list[logging.LogRecord] = []
    handler, logger = logging.Handler(), logging.getLogger("anomalib_vmpfd.engine.export_verification")
    handler.emit = records.append
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    path = Path(trained.engine.export(trained.model, "onnx", folder / "alone"))
    logger.removeHandler(handler)
    return path, records


@pytest.fixture(scope="module")
def onnx_path(onnx_export):
    """The ONNX export."""
    return onnx_export[0]


def answers_of(session: onnxruntime.InferenceSession, images: torch.Tensor) -> list[np.ndarray]:
    return session.run(list(OUTPUTS), {session.get_inputs()[0].name: images.numpy()})


def test_onnx_is_one_file_that_onnx_runtime_reads_in_any_batch(exported, onnx_path):
    *_, images, expected = exported
    assert sorted(file.name for file in onnx_path.parent.iterdir()) == ["metadata.json", onnx_path.name]
    session = onnxruntime.InferenceSession(onnx_path)
    together = answers_of(session, images)
    agree(together, expected)
    alone = [answers_of(session, image[None]) for image in images]
    for several, ones in zip(together, zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(np.concatenate(ones), several, atol=1e-5)


@pytest.mark.parametrize("size", [(480, 640), (900, 300)], ids=str)
def test_onnx_takes_images_of_any_size(exported, onnx_path, size):
    trained, *_, images, _ = exported
    sized = F.interpolate(images[-4:], size, mode="bilinear")
    with torch.inference_mode():
        wanted = {name: getattr(trained.model.eval()(sized), name).numpy() for name in OUTPUTS}
    agree(answers_of(onnxruntime.InferenceSession(onnx_path), sized), wanted)


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_scores_hold_in_sixteen_bits(exported, onnx_path, precision):
    """OpenVINO computes in bfloat16 of its own accord; positions of a resize that did took other pixels."""
    *_, images, expected = exported
    _, scores, labels = answers_of(in_low_precision(onnx_path, precision), images)
    moved = np.abs(scores.ravel() - expected["pred_score"].ravel())
    assert moved.max() < 0.1
    # a verdict is another one only where the score is as near to the threshold as that precision can tell
    near = np.abs(expected["pred_score"].ravel() - 0.5) <= {"bf16": 0.1, "f16": 0.01}[precision]
    assert (labels.ravel() == expected["pred_label"].ravel())[~near].all()


@pytest.fixture(scope="module")
def openvino_path(exported):
    trained, folder, *_ = exported
    return Path(trained.engine.export(trained.model, "openvino", folder))


def test_openvino_in_float32(exported, openvino_path, monkeypatch):
    _, folder, files, images, expected = exported
    monkeypatch.chdir(folder)  # for OpenVINO's cache
    path = openvino_path
    inferencer = OpenVINOInferencer(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers = inferencer.model(images.numpy())
    agree([answers[name] for name in OUTPUTS], expected)
    agree_on_files(inferencer, files, expected)


@pytest.fixture(scope="module")
def openvino_loop(openvino_path):
    """What takes the images of a batch one after another."""
    operations = openvino.Core().read_model(openvino_path).get_ordered_ops()
    (loop,) = [each for each in operations if each.get_type_name() == "Loop"]
    return loop


def test_openvino_knows_every_shape_after_the_resize(openvino_loop):
    """It shares no memory between results of unknown shapes: a batch of four took three times as much."""
    operations = openvino_loop.get_function().get_ordered_ops()
    unknown = {each.get_type_name() for each in operations if not each.get_output_partial_shape(0).is_static}
    assert unknown == {"Parameter"}


def test_openvino_is_told_to_compute_in_float32_on_any_processor(openvino_loop):
    kinds = {"Constant", "Parameter", "Result"}
    operations = [each for each in openvino_loop.get_function().get_ordered_ops() if each.get_type_name() not in kinds]
    assert len(operations) > 10
    assert all("DisablePrecisionConversion_0" in each.get_rt_info() for each in [openvino_loop, *operations])


def test_openvino_computes_no_weights_of_a_resize(openvino_loop):
    """Where it computes in bfloat16 it rounds them, whatever they are marked with."""
    operations = openvino_loop.get_function().get_ordered_ops()
    resized, *_ = [each for each in operations if each.get_type_name() == "Interpolate"]
    assert resized.get_attributes()["mode"] == "bilinear_pillow"
    assert resized.input_value(0).get_node().get_type_name() == "Parameter"


def test_openvino_rewrites_nothing_of_a_model_that_is_not_rounded(entry, openvino_loop):
    """What it puts in place of these when it compiles bears no mark, and is rounded where there is bfloat16."""
    if entry.bf16_difference > EXACT:
        pytest.skip("OpenVINO rewrites some operations of it")
    operations = openvino_loop.get_function().get_ordered_ops()
    assert not {each.get_type_name() for each in operations} & {"Einsum", "Pad"}
    for each in operations:
        if each.get_type_name() == "MatMul" and each.get_attributes()["transpose_a"]:
            assert each.input_value(1).get_node().get_type_name() != "Constant"


@pytest.mark.skipif(not has_bf16(), reason="no bfloat16 on this processor")
def test_openvino_answers_alike_where_the_processor_has_bfloat16(entry, exported, openvino_path):
    *_, images, _ = exported
    core = openvino.Core()
    wanted, seen = (
        core.compile_model(openvino_path, "CPU", {"INFERENCE_PRECISION_HINT": precision})(images.numpy())
        for precision in ("f32", "bf16")
    )
    for name in ("anomaly_map", "pred_score"):
        assert np.abs(seen[name] - wanted[name]).max() < entry.bf16_difference * np.ptp(wanted["anomaly_map"])


def test_openvino_takes_weights_in_sixteen_bits(exported, openvino_path, tmp_path):
    trained, *_, images, expected = exported
    path = trained.model.to_openvino(tmp_path, compression_type=CompressionType.FP16)
    size, halved = (each.with_suffix(".bin").stat().st_size for each in (openvino_path, path))
    assert halved < 0.6 * size
    answers = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images.numpy())
    moved = np.abs(answers["pred_score"].ravel() - expected["pred_score"].ravel())
    assert moved.max() < 0.05


def test_the_tools_here_ask_openvino_for_float32(openvino_path, tmp_path, monkeypatch):
    """Where a processor has bfloat16, OpenVINO chooses that, and verdicts change; others show no difference."""
    asked = []
    compile_model = openvino.Core.compile_model

    def recorded(core, network, device, config):
        asked.append(config)
        return compile_model(core, network, device, config)

    monkeypatch.setattr(openvino.Core, "compile_model", recorded)
    ExportJudge(openvino_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="Found 0 images"):  # after the export was opened
        predict_tiles(openvino_path, tmp_path / "none", tmp_path / "predictions")
    assert asked == [{"INFERENCE_PRECISION_HINT": "f32"}] * 2


def test_an_export_is_checked_against_its_checkpoint(exported, onnx_path, tmp_path, capsys):
    trained, _, files, *_ = exported
    for file in (files[0], files[-1]):
        shutil.copy(file, tmp_path / f"{Path(file).parent.name}_{Path(file).name}")
    arguments = ["--ckpt_path", str(trained.checkpoint), "--export", str(onnx_path), "--data", str(tmp_path)]
    assert check_export([*arguments, "--output", str(tmp_path / "report.json")]) == 0
    assert "0 verdicts differ" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert all(each["map_difference"] < 1e-3 for each in report["readers"].values())


def test_exports_say_what_they_are(exported, onnx_path, openvino_path):
    trained, *_ = exported
    beside = json.loads((onnx_path.parent / "metadata.json").read_text(encoding="utf-8"))
    properties = {each.key: each.value for each in onnx.load(onnx_path).metadata_props}
    assert json.loads(properties["anomalib_vmpfd"]) == beside
    model = openvino.Core().read_model(openvino_path)
    assert json.loads(model.get_rt_info(["anomalib_vmpfd"]).astype(str)) == beside
    assert json.loads((openvino_path.parent / "metadata.json").read_text(encoding="utf-8")) == beside
    assert (beside["model"], beside["input_size"]) == (type(trained.model).__name__, None)
    assert tuple(beside["image_size"]) == tuple(trained.model.input_size)
    assert beside["arguments"].keys() == trained.model.hparams.keys()
    assert beside["thresholds"]["image"] == trained.model.post_processor.image_threshold.item()


def test_an_export_is_verified_in_one_line(onnx_export):
    path, (record,) = onnx_export
    assert record.levelno == logging.INFO
    assert f"{path}: verified with ONNX Runtime in float32" in record.getMessage()


@pytest.mark.parametrize("kind", ["int8_ptq", CompressionType.INT8])
def test_eight_bits_are_refused_by_name(exported, kind):
    trained, folder, *_ = exported
    with pytest.raises(ValueError, match=r"(?i)int8.*not supported"):
        trained.model.to_openvino(folder, compression_type=kind)
