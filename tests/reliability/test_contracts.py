# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What the plugin relies on in anomalib, Lightning and timm, one contract a test: a change there is named here.

The imports are read from the package's own source. Behaviour that no signature shows is proved below on small objects.
"""

import ast
import importlib
import inspect
from pathlib import Path

import pytest
import torch
from anomalib.data import Batch, Folder, ImageBatch, ImageItem
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule, GaussianBlur2d, TimmFeatureExtractor
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Callback
from torchvision.transforms.v2 import Resize

import anomalib_vmpfd
import tiny

SOURCE = Path(anomalib_vmpfd.__file__).parent
OTHERS = ("anomalib", "lightning", "timm", "kornia", "torchmetrics", "jsonargparse")


def imports() -> list[tuple[str, str]]:
    """Names that the package imports from others, by the AST of its files."""
    found = set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OTHERS:
                found |= {(node.module, alias.name) for alias in node.names}
    return sorted(found)


@pytest.mark.parametrize(("module", "name"), imports())
def test_import(module, name):
    assert hasattr(importlib.import_module(module), name), (
        f"anomalib-vmpfd imports {name} from {module}, which lacks it"
    )


SIGNATURES = [
    # what, its arguments that are used by name, where
    (AnomalibModule.__init__, {"pre_processor", "post_processor", "evaluator", "visualizer"}, "VmpfdAd.__init__"),
    (AnomalibModule.configure_pre_processor, {"image_size"}, "CalibratedMixin.configure_pre_processor"),
    (AnomalibModule.load_from_checkpoint, {"checkpoint_path", "weights_only"}, "CalibratedMixin.load_from_checkpoint"),
    (PostProcessor.__init__, {"enable_normalization", "enable_thresholding"}, "RankPreservingPostProcessor"),
    (PostProcessor._normalize, {"preds", "norm_min", "norm_max", "threshold"}, "RankPreservingPostProcessor"),
    (PostProcessor._apply_threshold, {"preds", "threshold"}, "RankPreservingPostProcessor"),
    (PostProcessor.on_validation_batch_end, {"trainer", "pl_module", "outputs"}, "RankPreservingPostProcessor"),
    (PreProcessor.__init__, {"transform"}, "CalibratedMixin.configure_pre_processor"),
    (GaussianBlur2d.__init__, {"sigma", "channels"}, "PixelReconstruction"),
    (TimmFeatureExtractor.__init__, {"backbone", "layers", "pre_trained"}, "PatchDescriptor"),
    (Engine.__init__, {"default_root_dir", "callbacks"}, "benchmark.run"),
    (Engine.fit, {"model", "datamodule", "ckpt_path"}, "benchmark.run"),
    (Engine.test, {"model", "datamodule", "verbose"}, "benchmark.run"),
    (Callback.on_exception, {"trainer", "pl_module", "exception"}, "ImageErrors"),
]


@pytest.mark.parametrize(
    ("function", "arguments", "where"), SIGNATURES, ids=lambda value: getattr(value, "__qualname__", None)
)
def test_signature(function, arguments, where):
    missing = arguments - set(inspect.signature(function).parameters)
    assert not missing, f"{function.__qualname__} has no {', '.join(missing)}, which {where} gives or overrides"


ATTRIBUTES = [
    (AnomalibModule, "input_size", "VmpfdAd.setup and CalibratedMixin"),
    (AnomalibModule, "trainer_arguments", "CalibratedMixin"),
    (AnomalibModule, "learning_type", "CalibratedMixin"),
    (AnomalibModule, "configure_callbacks", "CalibratedMixin"),
    (PostProcessor, "_checkpoint_config_keys", "RankPreservingPostProcessor: thresholds come back with a checkpoint"),
    (Batch, "update", "CalibratedMixin.validation_step"),
    (Engine, "trainer", "benchmark.run"),
]


@pytest.mark.parametrize(("owner", "name", "where"), ATTRIBUTES, ids=lambda value: getattr(value, "__name__", None))
def test_attribute(owner, name, where):
    assert hasattr(owner, name), f"{owner.__name__} has no {name}, on which {where} relies"


def test_post_processor_keeps_its_thresholds_in_these_buffers():
    buffers = set(dict(PostProcessor().named_buffers()))
    wanted = {f"{kind}_{end}" for kind in ("image", "pixel") for end in ("min", "max")}
    wanted |= {"_image_threshold", "_pixel_threshold"}
    assert wanted <= buffers, f"RankPreservingPostProcessor.calibrate writes {sorted(wanted - buffers)}"
    assert {"image_threshold", "pixel_threshold"} <= set(dir(PostProcessor)), "benchmark.run reads the thresholds"


def test_feature_extractor_has_these_parts():
    extractor = TimmFeatureExtractor("resnet18", layers=["layer1", "layer2"], pre_trained=False)
    assert list(extractor.idx) == [1, 2], "TimmFeatureExtractor.idx are the out_indices of timm: descriptor weights"
    assert extractor.layers == ["layer1", "layer2"]
    infos = extractor.feature_extractor.feature_info.info
    assert infos[1]["module"] == "layer1", "feature_info.info names the stages: error messages and the cut of blocks"
    assert {"mean", "std"} <= set(extractor.feature_extractor.default_cfg), "the descriptor normalises by default_cfg"
    assert list(extractor(torch.rand(1, 3, 64, 64))) == ["layer1", "layer2"], "features come in the order of layers"


def test_timms_efficient_nets_have_blocks_to_cut():
    import timm

    network = timm.create_model("tf_efficientnet_lite0", features_only=True, exportable=True, out_indices=(1, 2))
    assert isinstance(network, timm.models.efficientnet.EfficientNetFeatures)
    assert len(network.blocks) == 7, "PatchDescriptor cuts the stages behind the last that is read"


def test_a_batch_knows_its_files_and_takes_predictions():
    items = [ImageItem(image=torch.rand(3, 8, 8), image_path=f"{i}.png", gt_label=torch.tensor(0)) for i in range(2)]
    batch = ImageBatch.collate(items)
    assert batch.image_path == ["0.png", "1.png"], "held-out images are known by Batch.image_path"
    assert batch.update(pred_score=torch.rand(2)).pred_score.shape == (2,)


def test_data_set_of_a_datamodule(parts):
    datamodule = tiny.data(parts)
    datamodule.setup()
    dataset = datamodule.train_dataloader().dataset
    assert {"image_path", "mask_path"} <= set(dataset.samples), "NormalImages and ImageErrors read the table of samples"
    assert isinstance(datamodule, Folder)
    dataset.augmentations = Resize((8, 8))
    assert dataset[0].image.shape == (3, 8, 8), "NormalImages replaces the augmentations to read without them"
    assert hasattr(datamodule, "train_augmentations"), "VmpfdAd caches descriptors where there are none"


class Watched(Callback):
    """Looks at the trainer where the plugin does."""

    def __init__(self) -> None:
        self.seen: dict[str, object] = {}

    def on_train_epoch_start(self, trainer, *_args) -> None:
        from anomalib_vmpfd.engine.recipe import _engine_arguments

        fetcher = trainer.fit_loop._data_fetcher
        self.seen |= {
            "fit_loop._data_fetcher": hasattr(fetcher, "__iter__"),
            "Engine._cache.args": "max_epochs" in _engine_arguments(),
            "train_dataloader.dataset": hasattr(trainer.train_dataloader, "dataset"),
            "estimated_stepping_batches": trainer.estimated_stepping_batches,
            "strategy.checkpoint_io": type(trainer.strategy.checkpoint_io).__name__,
        }


@pytest.fixture(scope="module")
def watched(parts, tmp_path_factory):
    seen = Watched()
    runner = tiny.engine(tmp_path_factory.mktemp("watched"), callbacks=[seen], max_epochs=1)
    runner.fit(tiny.model(reconstruction=None, encoder_args=None), datamodule=tiny.data(parts))
    return seen.seen


@pytest.mark.parametrize(
    ("name", "expected", "where"),
    [
        ("fit_loop._data_fetcher", True, "CalibratedMixin.on_train_epoch_start redraws a run's first order from it"),
        ("Engine._cache.args", True, "recipe.wants_recipe_length asks it for the user's max_epochs"),
        ("train_dataloader.dataset", True, "NormalImages reads the training images from it"),
        ("estimated_stepping_batches", 3, "the cosine schedule ends with the training"),
        ("strategy.checkpoint_io", "WholeCheckpointIO", "checkpoints are written whole on any file system"),
    ],
)
def test_the_trainer_of_a_fit(name, expected, where, watched):
    assert watched[name] == expected, f"{name} changed: {where}"


def test_checkpoints_load_without_code_by_default():
    assert inspect.signature(AnomalibModule.load_from_checkpoint).parameters["weights_only"].default is True
    from anomalib.engine.plugins.checkpoint_io import AnomalibCheckpointIO

    assert inspect.signature(AnomalibCheckpointIO.load_checkpoint).parameters["weights_only"].default is True


def test_timm_loads_weights_without_code():
    import timm.models._helpers as helpers

    default = inspect.signature(helpers.load_state_dict).parameters["weights_only"].default
    assert default is True, "PatchDescriptor gives timm a user's file of weights"
