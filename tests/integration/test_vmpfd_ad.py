# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""VmpfdAd in anomalib's engine, on real files: it learns, comes back from its checkpoint and says what is wrong."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from lightning.pytorch import Callback
from PIL import Image
from sklearn.metrics import roc_auc_score

from anomalib_vmpfd import SampleParts, VmpfdAd
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor
from anomalib_vmpfd.weights import WeightsError

ENCODER, DENSITY = {"depth": 1, "dim": 32}, {"num_components": 256}
SMALL = {
    "image_size": (128, 128),
    "encoder_args": ENCODER,
    "density_args": DENSITY,
    "reconstruction": "descriptors",
    "epochs": 2,
}
ALONE = {**SMALL, "encoder_args": None, "reconstruction": None}  # nothing to train: the density branch by itself


def parts(root: Path, **arguments) -> SampleParts:
    defaults = {
        "train_batch_size": 16,
        "eval_batch_size": 16,
        "num_workers": 0,
        "val_split_mode": "from_train",
        "seed": 0,
    }
    return SampleParts(root=root, **(defaults | arguments))


def engine(folder: Path, **arguments) -> Engine:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "limit_val_batches": 0}
    return Engine(default_root_dir=folder, **(quiet | arguments))


def scores(model: VmpfdAd, datamodule) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and labels of the test images by the model's own forward, outside any trainer."""
    model.eval()
    seen, labels = [], []
    with torch.inference_mode():
        for batch in datamodule.test_dataloader():
            seen.append(model(batch.image).pred_score)
            labels.append(batch.gt_label)
    return torch.cat(seen), torch.cat(labels)


@pytest.fixture(scope="module")
def trained(sample_root: Path, tmp_path_factory: pytest.TempPathFactory):
    """A small model trained on the sample parts, with its engine, its data and its test metrics."""
    datamodule = parts(sample_root)
    model = VmpfdAd(**SMALL)
    runner = engine(tmp_path_factory.mktemp("trained"))
    runner.fit(model, datamodule=datamodule)
    metrics = runner.test(model, datamodule=datamodule, verbose=False)[0]
    return model, runner, datamodule, metrics


def test_finds_the_planted_defects_and_agrees_with_scikit_learn(trained):
    model, _, datamodule, metrics = trained
    seen, labels = scores(model, datamodule)
    assert metrics["image_AUROC"] == pytest.approx(roc_auc_score(labels, seen), abs=1e-6)
    assert metrics["image_AUROC"] > 0.9
    assert metrics["pixel_AUROC"] > 0.9


def test_heatmaps_point_at_the_defects(trained):
    """The brightest pixel of most defective parts lies within 12 pixels of the planted defect."""
    model, _, datamodule, _ = trained
    hits = []
    with torch.inference_mode():
        for batch in datamodule.test_dataloader():
            maps = model(batch.image).anomaly_map[:, 0]
            near = torch.nn.functional.max_pool2d(batch.gt_mask.float()[:, None], 25, 1, 12)[:, 0] > 0
            peaks = maps.flatten(1).argmax(1)
            hits += [bool(near[i].flatten()[p]) for i, p in enumerate(peaks) if batch.gt_label[i]]
    assert np.mean(hits) > 0.6


def test_a_checkpoint_predicts_the_same_without_any_weights_file(trained, monkeypatch):
    model, runner, datamodule, _ = trained
    monkeypatch.setattr(PatchDescriptor, "load_weights", lambda *_: pytest.fail("a checkpoint has its weights"))
    loaded = VmpfdAd.load_from_checkpoint(runner.trainer.checkpoint_callback.best_model_path)
    torch.testing.assert_close(scores(loaded, datamodule)[0], scores(model, datamodule)[0], rtol=0, atol=0)
    assert loaded.post_processor.image_threshold == model.post_processor.image_threshold


def test_scores_depend_neither_on_batch_size_nor_on_order(trained):
    model, _, datamodule, _ = trained
    batch = next(iter(datamodule.test_dataloader())).image
    model.eval()
    with torch.inference_mode():
        together = model(batch).pred_score
        alone = torch.stack([model(image[None]).pred_score[0] for image in batch])
        backwards = model(batch.flip(0)).pred_score.flip(0)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together, backwards, rtol=1e-4, atol=1e-5)


def test_explain_shows_both_branches_of_an_image_of_any_size(trained):
    model = trained[0]
    seen = model.explain(torch.rand(3, 200, 180))
    weights = model.hparams.map_weights
    torch.testing.assert_close(seen["tam"], weights[0] * seen["lam"] + weights[1] * seen["gam"])
    torch.testing.assert_close(seen["score"], seen["tam"].amax((1, 2, 3)))


def test_same_seed_same_model_other_seed_other_model(sample_root, tmp_path):
    weights = []
    for run, seed in enumerate((1, 1, 2)):
        model = VmpfdAd(**SMALL, seed=seed)
        torch.rand(run + 1)  # what happened before must not matter
        engine(tmp_path / str(run), max_epochs=1).fit(model, datamodule=parts(sample_root))
        weights.append(torch.cat([p.detach().flatten() for p in model.model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)
    assert not torch.equal(weights[0], weights[2])


class StopAfter(Callback):
    """Interrupts a training at the end of an epoch, as a user would."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        del pl_module
        trainer.should_stop = trainer.current_epoch >= self.epoch


def test_a_resumed_training_ends_like_an_uninterrupted_one(sample_root, tmp_path):
    whole = VmpfdAd(**SMALL)
    engine(tmp_path / "whole", max_epochs=3).fit(whole, datamodule=parts(sample_root))

    first = engine(tmp_path / "part", max_epochs=3, callbacks=[StopAfter(0)])
    first.fit(VmpfdAd(**SMALL), datamodule=parts(sample_root))
    resumed = VmpfdAd(**SMALL)
    engine(tmp_path / "resumed", max_epochs=3).fit(
        resumed,
        datamodule=parts(sample_root),
        ckpt_path=first.trainer.checkpoint_callback.best_model_path,
    )
    for (name, expected), value in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(
            value, expected, rtol=1e-4, atol=1e-5, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(("given", "expected"), [({}, 2), ({"max_epochs": 3}, 3), ({"max_epochs": 1000}, 1000)])
def test_the_recipe_ends_a_bare_training_and_a_users_value_wins(sample_root, tmp_path, given, expected):
    runner = engine(tmp_path, callbacks=[StopAfter(0)] if given else [], **given)
    runner.fit(VmpfdAd(**ALONE), datamodule=parts(sample_root))
    assert runner.trainer.max_epochs == expected
    if not given:
        assert runner.trainer.current_epoch == expected


def test_training_and_calibration_never_read_a_test_image(sample_root, tmp_path):
    root = shutil.copytree(sample_root, tmp_path / "data")
    for image in (root / "washer" / "test").rglob("*.png"):
        image.write_bytes(b"")
    model = VmpfdAd(**ALONE)
    engine(tmp_path, max_epochs=1).fit(model, datamodule=parts(root))
    assert model.post_processor.image_threshold.isfinite()


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
        engine(tmp_path, max_epochs=1).fit(model, datamodule=datamodule)
    assert "Give at least 10 normal images" in caplog.text
    seen = model.eval()(torch.rand(2, 3, 60, 80))
    assert seen.anomaly_map.shape[-2:] == (64, 96)
    assert ((seen.pred_score > 0) & (seen.pred_score < 1)).all()


def test_a_loss_that_is_not_finite_names_the_images_and_keeps_the_last_checkpoint(sample_root, tmp_path):
    class Break(Callback):
        def on_train_epoch_start(self, trainer, pl_module) -> None:
            if trainer.current_epoch == 1:
                pl_module.model.reconstruction.decoder.from_code[0].weight.data.fill_(float("nan"))

    runner = engine(tmp_path, max_epochs=3, callbacks=[Break()])
    with pytest.raises(ValueError, match=r"not finite at step 2 .*last checkpoint is unharmed.*\.png"):
        runner.fit(VmpfdAd(**SMALL), datamodule=parts(sample_root))
    kept = VmpfdAd.load_from_checkpoint(runner.trainer.checkpoint_callback.best_model_path)
    assert all(p.isfinite().all() for p in kept.parameters())


def test_every_ablation_of_tables_5_to_7_trains(sample_root, tmp_path):
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
        runner = engine(tmp_path / str(index), max_epochs=1, limit_train_batches=2)
        runner.fit(model, datamodule=parts(sample_root))
        seen, _ = scores(model, runner.trainer.datamodule)
        assert seen.isfinite().all()
        assert len(seen.unique()) > len(seen) // 2, arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": (250, 256)}, "250x256 is not a multiple of the patch size 32; use 256x256"),
        ({"descriptor": "pdn_large"}, "Unknown descriptor 'pdn_large'; choose 'pdn_small'"),
        ({"descriptor": "timm/resnet18"}, r"needs descriptor_args\.layers"),
        ({"descriptor": "timm/resnet18", "descriptor_args": {"layers": ["layer9"]}}, "no stages layer9.*layer2"),
        (
            {"descriptor": "timm/no_such_net", "descriptor_args": {"layers": ["a"]}},
            "timm knows no backbone 'no_such_net'",
        ),
        ({"descriptor": "pdn_small", "descriptor_args": {"layers": ["conv1"]}}, "has one output"),
        (
            {"density": "predicted", "density_args": {"features": "all"}},
            "Unknown features='all' in density_args; choose one of 'fused'",
        ),
        (
            {"density_args": {"target": "self"}},
            "density_args has no 'target' where density='prototypes'; it takes num_comp",
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
        ({"descriptor": "pdn_medium"}, r"No pdn_medium is bundled; give descriptor_args\.weights=.official."),
        (
            {"descriptor": "timm/resnet18", "descriptor_args": {"layers": ["layer2"]}},
            "No weights of resnet18 are bundled",
        ),
    ],
)
def test_weights_that_cannot_be_had_end_the_fit_with_the_cure(sample_root, tmp_path, arguments, message):
    with pytest.raises(WeightsError, match=message):
        engine(tmp_path, max_epochs=1).fit(VmpfdAd(**(SMALL | arguments)), datamodule=parts(sample_root))


def test_a_pre_processor_of_another_size_is_refused(sample_root, tmp_path):
    model = VmpfdAd(**SMALL, pre_processor=VmpfdAd.configure_pre_processor((64, 64)))
    with pytest.raises(ValueError, match=r"64x64 pixels, but the model was built for 128x128; .*image_size=\(64, 64\)"):
        engine(tmp_path, max_epochs=1).fit(model, datamodule=parts(sample_root))


def test_an_unreadable_image_is_named_before_anything_is_learnt(tmp_path):
    root = grey_normals(tmp_path / "data", 12)
    (root / "good" / "007.png").write_bytes(b"not an image")
    datamodule = Folder(
        "grey", normal_dir="good", root=root, num_workers=1, val_split_mode="none", test_split_mode="none"
    )
    with pytest.raises(ValueError, match=r"007\.png.*[Rr]eplace or remove"):
        engine(tmp_path, max_epochs=1).fit(VmpfdAd(**(SMALL | {"image_size": (64, 64)})), datamodule=datamodule)


def test_a_folder_without_normal_images_is_named(tmp_path):
    (tmp_path / "data" / "good").mkdir(parents=True)
    datamodule = Folder("none", normal_dir="good", root=tmp_path / "data", num_workers=0, test_split_mode="none")
    with pytest.raises((ValueError, RuntimeError), match="good"):
        engine(tmp_path, max_epochs=1).fit(VmpfdAd(**SMALL), datamodule=datamodule)
