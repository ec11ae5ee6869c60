# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What the README tells to type, with anomalib's own command line: train, test, predict and export."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from anomalib.cli.cli import AnomalibCLI
from torchvision.io import decode_image

from anomalib_vmpfd import VmpfdAd, register

MODEL = ["--model", "VmpfdAd"]  # of a checkpoint, which describes all else by itself
ARGUMENTS = [
    "--model.image_size", "[128,128]",
    "--model.density_args.num_components", "128",
]  # fmt: skip
TRAINER = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


@pytest.fixture(scope="module")
def workplace(sample_root: Path, tmp_path_factory: pytest.TempPathFactory):
    """Runs a command in a folder of its own; a model has been trained there."""
    register()
    folder = tmp_path_factory.mktemp("workplace")
    data = ["--data", "SampleParts", "--data.root", str(sample_root), "--data.num_workers", "0"]

    def run(subcommand: str, *arguments: str) -> AnomalibCLI:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            return AnomalibCLI(args=[subcommand, *arguments])

    run("train", *MODEL, *ARGUMENTS, *data, *TRAINER, "--trainer.max_epochs", "2", "--data.train_batch_size", "16")
    checkpoint = (
        folder / "results" / "VmpfdAd" / "SampleParts" / "washer" / "latest" / "weights" / "lightning" / "model.ckpt"
    )
    return folder, run, data, checkpoint


def test_train_writes_a_checkpoint_its_config_and_a_heatmap_of_every_test_image(workplace, sample_root):
    _, _, _, checkpoint = workplace
    run = checkpoint.parents[2]
    assert (run / "config.yaml").read_text().count("anomalib_vmpfd.VmpfdAd") == 1
    tested = {p.relative_to(sample_root / "washer" / "test").with_suffix("") for p in sample_root.rglob("test/*/*.png")}
    assert {p.relative_to(run / "images").with_suffix("") for p in (run / "images").rglob("*.png")} == tested


def test_test_with_the_checkpoint_gives_the_metrics_again(workplace):
    _, run, data, checkpoint = workplace
    metrics = run("test", *MODEL, *data, *TRAINER, "--ckpt_path", str(checkpoint)).engine.trainer.callback_metrics
    assert metrics["image_AUROC"] > 0.85


def test_an_argument_that_contradicts_the_checkpoint_is_an_error(workplace):
    _, run, data, checkpoint = workplace
    with pytest.raises(
        ValueError, match=r"image_size=\[64, 64\] was given, the checkpoint was trained with \[128, 128\]"
    ):
        run("test", *MODEL, "--model.image_size", "[64,64]", *data, *TRAINER, "--ckpt_path", str(checkpoint))


def test_predict_marks_single_images_without_a_datamodule(workplace, sample_root):
    folder, run, _, checkpoint = workplace
    image = next((sample_root / "washer" / "test" / "scratch").glob("*.png"))
    run("predict", *MODEL, *TRAINER, "--data", str(image), "--ckpt_path", str(checkpoint))
    assert list((folder / "results" / "VmpfdAd").rglob(f"images/**/{image.name}"))


def test_the_exported_model_judges_images_of_any_size_as_the_checkpoint_does(workplace, sample_root):
    folder, run, _, checkpoint = workplace
    run(
        "export",
        *MODEL,
        "--export_type",
        "onnx",
        "--ckpt_path",
        str(checkpoint),
        "--export_root",
        str(folder / "export"),
    )
    session = onnxruntime.InferenceSession(folder / "export" / "weights" / "onnx" / "model.onnx")
    model = VmpfdAd.load_from_checkpoint(checkpoint).eval()
    images = torch.stack([
        decode_image(str(path)).float() / 255 for path in sorted(sample_root.glob("washer/test/*/*.png"))[::6]
    ])
    with torch.inference_mode():
        expected = model(images)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, {session.get_inputs()[0].name: images.numpy()}), strict=True))
    np.testing.assert_allclose(outputs["pred_score"].ravel(), expected.pred_score.ravel(), atol=1e-3)
    np.testing.assert_allclose(outputs["anomaly_map"], expected.anomaly_map, atol=1e-3)
    assert (outputs["pred_label"].ravel() == expected.pred_label.numpy().ravel()).all()
    alone = session.run(["pred_score"], {session.get_inputs()[0].name: images[:1].numpy()})[0]
    np.testing.assert_allclose(alone.ravel(), expected.pred_score[:1].ravel(), atol=1e-3)
