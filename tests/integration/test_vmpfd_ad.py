# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What is special to VmpfdAd: branches and their ablations, arguments and weights; the contract has the rest."""

import logging
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from anomalib.data import Folder
from PIL import Image
from trainings import scores

import tiny
from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.weights import WeightsError

SMALL = {
    "image_size": (64, 64),
    "encoder_args": {"depth": 1, "dim": 16},
    "density_args": {"num_components": 32},
    "reconstruction": "descriptors",
    "epochs": 1,
    "visualizer": False,
}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve normal images, and test images."""
    return tiny.with_defects(tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="module")
def trained(few, tmp_path_factory):
    """A small model whose reconstruction of descriptors is trained, its engine and its data."""
    model, data = VmpfdAd(**{**SMALL, "epochs": 3, "image_score": "map"}), tiny.data(few)
    runner = tiny.engine(tmp_path_factory.mktemp("trained"))
    runner.fit(model, datamodule=data)
    return model, runner, data


def test_two_trained_branches_find_the_defects(trained):
    model, runner, data = trained
    metrics = runner.test(model, datamodule=data, verbose=False)[0]
    assert metrics["image_AUROC"] > 0.9
    assert metrics["pixel_AUROC"] > 0.9


def test_explain_shows_both_branches_of_an_image_of_any_size_and_their_weighted_sum(trained):
    seen = trained[0].explain(torch.rand(3, 200, 180))
    weights = trained[0].hparams.map_weights
    torch.testing.assert_close(seen["tam"], weights[0] * seen["lam"] + weights[1] * seen["gam"])
    torch.testing.assert_close(seen["score"], seen["tam"].amax((1, 2, 3)))


def test_a_trained_reconstruction_of_descriptors_comes_back_from_checkpoint_and_export(trained, tmp_path):
    model, runner, data = trained
    loaded = VmpfdAd.load_from_checkpoint(runner.trainer.checkpoint_callback.best_model_path)
    torch.testing.assert_close(scores(loaded, data)[0], scores(model, data)[0], rtol=0, atol=0)
    images = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        expected = model(images).anomaly_map
    session = onnxruntime.InferenceSession(runner.export(model, "onnx", tmp_path))
    (seen,) = session.run(["anomaly_map"], {session.get_inputs()[0].name: images.numpy()})
    assert np.abs(seen.reshape(expected.shape) - expected.numpy()).max() < 1e-3 * np.ptp(expected.numpy())


@pytest.mark.parametrize("side", [96, 256], ids=["other", "default-by-hand"])
def test_an_image_size_that_contradicts_the_checkpoint_names_both(trained, side, tmp_path):
    _, runner, data = trained
    checkpoint = runner.trainer.checkpoint_callback.best_model_path
    message = rf"image_size=\[{side}, {side}\].*\[64, 64\]"
    with pytest.raises(ValueError, match=message):
        VmpfdAd.load_from_checkpoint(checkpoint, image_size=(side, side))
    with pytest.raises(ValueError, match=message):
        tiny.engine(tmp_path).test(VmpfdAd(image_size=(side, side)), datamodule=data, ckpt_path=checkpoint)
    VmpfdAd.load_from_checkpoint(checkpoint, image_size=(64, 64), visualizer=False)


def grey_normals(folder: Path, count: int, size: tuple[int, int] = (80, 60)) -> Path:
    generator = np.random.default_rng(0)
    (folder / "good").mkdir(parents=True)
    for index in range(count):
        texture = generator.normal(128, 8, size[::-1]).clip(0, 255).astype(np.uint8)
        Image.fromarray(texture, "L").save(folder / "good" / f"{index:03}.png")
    return folder


def test_four_grey_images_of_a_size_of_their_own_at_batch_size_one(tmp_path, caplog):
    root = grey_normals(tmp_path / "data", 4)
    datamodule = Folder("grey", normal_dir="good", root=root, train_batch_size=1, num_workers=0, val_split_mode="none",
                        test_split_mode="none")  # fmt: skip
    model = VmpfdAd(**(SMALL | {"image_size": (64, 96)}))
    with caplog.at_level(logging.WARNING):
        tiny.engine(tmp_path, max_epochs=1).fit(model, datamodule=datamodule)
    assert "Give at least 10 normal images" in caplog.text
    seen = model.eval()(torch.rand(2, 3, 60, 80))
    assert seen.anomaly_map.shape[-2:] == (64, 96)
    assert ((seen.pred_score > 0) & (seen.pred_score < 1)).all()


def test_every_ablation_of_tables_5_to_7_trains(few, tmp_path):
    for index, arguments in enumerate((
        {"encoder": "cnn", "encoder_args": {"dim": 32}},
        {"reconstruction": "pixels"},
        {"reconstruction": "pixels", "encoder": "cnn", "encoder_args": {"dim": 32}, "map_weights": (0.7, 0.3)},
        {"density": None, "density_args": None},
        {"reconstruction": None, "encoder_args": None},
        {"density": "predicted", "density_args": {"num_components": 2, "features": "encoder"}},
        {
            "density": "predicted",
            "density_args": {"num_components": 2, "features": "descriptor"},
            "reconstruction": None,
            "encoder_args": None,
        },
        {
            "descriptor": "pdn_small",
            "descriptor_args": {"grid": 4},
            "density": "predicted",
            "density_args": {"num_components": 3, "target": "self"},
            "reconstruction": "pixels",
        },
        {
            "density": "predicted",
            "density_args": {"num_components": 2, "covariance": "full"},
            "encoder_args": {"depth": 0, "dim": 32},
        },
    )):
        model = VmpfdAd(**(SMALL | arguments))
        data = tiny.data(few)
        tiny.engine(tmp_path / str(index), max_epochs=1, limit_train_batches=2).fit(model, datamodule=data)
        seen, _ = scores(model, data)
        assert seen.isfinite().all()
        assert len(seen.unique()) > len(seen) // 2, arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"image_size": (250, 256), "reconstruction": "descriptors"},
            "250x256 is not a multiple of the patch size 32; use 256x256",
        ),
        ({"descriptor": "pdn_large"}, "Unknown descriptor 'pdn_large'; choose 'pdn_small'"),
        ({"descriptor": "timm/resnet18"}, r"needs layers"),
        ({"descriptor": "timm/resnet18", "descriptor_args": {"layers": ["layer9"]}}, "no stages layer9.*layer2"),
        (
            {"descriptor": "timm/no_such_net", "descriptor_args": {"layers": ["a"]}},
            "timm knows no backbone 'no_such_net'",
        ),
        ({"descriptor": "pdn_small", "descriptor_args": {"layers": ["conv1"]}}, "has one output"),
        (
            {"density": "predicted", "density_args": {"features": "all"}},
            "Unknown density_args.features='all'; choose one of 'fused'",
        ),
        (
            {"density_args": {"target": "self"}},
            "density_args has no 'target' where density='prototypes'; it takes scales, num_comp",
        ),
    ],
)
def test_bad_arguments_end_in_one_sentence_with_the_cure(arguments, message):
    with pytest.raises(ValueError, match=message):
        VmpfdAd(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"descriptor_args": {"weights": "no/such/file.pth"}}, "no/such/file.pth.*local file"),
        ({"descriptor": "pdn_medium"}, r"No pdn_medium is bundled; give weights=.official."),
        (
            {"descriptor": "timm/resnet18", "descriptor_args": {"layers": ["layer2"]}},
            "No weights of resnet18 are bundled",
        ),
    ],
)
def test_weights_that_cannot_be_had_end_the_fit_with_the_cure(few, tmp_path, arguments, message):
    with pytest.raises(WeightsError, match=message):
        tiny.engine(tmp_path, max_epochs=1).fit(VmpfdAd(**(SMALL | arguments)), datamodule=tiny.data(few))


def test_a_pre_processor_of_another_size_is_refused(few, tmp_path):
    model = VmpfdAd(**SMALL, pre_processor=VmpfdAd.configure_pre_processor((96, 96)))
    with pytest.raises(ValueError, match=r"96x96 pixels, but the model was built for 64x64; .*image_size=\(96, 96\)"):
        tiny.engine(tmp_path, max_epochs=1).fit(model, datamodule=tiny.data(few))
