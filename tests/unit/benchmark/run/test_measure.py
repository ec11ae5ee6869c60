# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""One run: local weights in place of downloads, thresholds of the final weights, the error of a dying process."""

import json
import os
import shutil
import signal
import socket
from pathlib import Path

import pytest
import timm
import torch
from anomalib.models import EfficientAd, Patchcore
from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork
from safetensors.torch import save_file

from anomalib_vmpfd.benchmark.records import RunKey
from anomalib_vmpfd.benchmark.run.build import use_local_weights
from anomalib_vmpfd.benchmark.run.isolation import run_isolated
from anomalib_vmpfd.benchmark.run.measure import measure
from anomalib_vmpfd.benchmark.run.spec import RunSpec
from anomalib_vmpfd.benchmark.suite import SpeedProtocol
from anomalib_vmpfd.weights import load_backbone_state_dict


def spec(**changes: object) -> RunSpec:
    base = {
        "key": RunKey("s", "Model", "SampleParts", "washer", 0),
        "model": "EfficientAd",
        "args": {},
        "data": "MVTecAD",
        "data_args": {},
        "trainer": {"accelerator": "cpu"},
        "weights": {},
        "speed": SpeedProtocol(warmup=0, repeats=1, batch_size=1, batch_repeats=1),
        "threads": None,
        "settings": "x",
    }
    return RunSpec(**base | changes)


@pytest.fixture(scope="module")
def few(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a handful of sample parts."""
    root = tmp_path_factory.mktemp("few")
    for folder, count in (("train/good", 4), ("test/good", 1), ("test/scratch", 1), ("ground_truth/scratch", 1)):
        target = root / "washer" / folder
        target.mkdir(parents=True)
        for file in sorted((sample_root / "washer" / folder).iterdir())[:count]:
            shutil.copy(file, target)
    return root


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every connection an error."""

    def refuse(*args: object) -> None:
        pytest.fail(f"connects to {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_efficient_ad_trains_offline_from_a_local_teacher(few, sample_root, tmp_path):
    torch.manual_seed(3)
    teacher = SmallPatchDescriptionNetwork(384).half().state_dict()
    save_file(teacher, tmp_path / "teacher.safetensors")
    natural = tmp_path / "natural" / "photographs"
    natural.mkdir(parents=True)
    shutil.copy(next((sample_root / "washer" / "train" / "good").iterdir()), natural)
    checkpoint = tmp_path / "model.ckpt"
    result = measure(
        spec(
            args={"imagenet_dir": str(natural.parent)},
            data_args={
                "root": str(few),
                "category": "washer",
                "train_batch_size": 1,
                "num_workers": 0,
                "val_split_mode": "from_train",
                "val_split_ratio": 0.3,
            },
            trainer={"accelerator": "cpu", "max_steps": 1, "check_val_every_n_epoch": 50},
            weights={"model.teacher": str(tmp_path / "teacher.safetensors")},
            checkpoint=str(checkpoint),
        ),
    )
    state = torch.load(checkpoint, weights_only=False)["state_dict"]
    for name, value in teacher.items():
        torch.testing.assert_close(state[f"model.teacher.{name}"], value.float())
    assert result.row["train_steps"] == 1
    assert state["model.quantiles.qb_st"] != 0, "one step ends inside an epoch, yet the model was calibrated"
    assert result.row["threshold"] is not None
    assert result.row["status"] == "ok"
    assert len(result.predictions["decisions"]) == 2


def test_a_truncated_backbone_cuts_the_network_where_the_file_ends(tmp_path):
    layers = ["blocks.2", "blocks.4"]
    save_file(load_backbone_state_dict(), tmp_path / "backbone.safetensors")
    model = Patchcore(backbone="tf_efficientnet_lite2", layers=layers, pre_trained=False)
    target = "model.feature_extractor.feature_extractor"
    use_local_weights(model, {target: str(tmp_path / "backbone.safetensors")})
    assert len(model.get_submodule(target).blocks) == 5

    full = Patchcore(backbone="tf_efficientnet_lite2", layers=layers, pre_trained=False)
    missing, unexpected = full.get_submodule(target).load_state_dict(load_backbone_state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[1] for name in missing} == {"5", "6"}
    image = torch.rand(1, 3, 64, 64)
    for name, features in full.model.feature_extractor.eval()(image).items():
        torch.testing.assert_close(model.model.feature_extractor.eval()(image)[name], features)


@pytest.mark.usefixtures("no_network")
def test_timm_takes_a_backbone_from_a_folder(tmp_path):
    torch.manual_seed(0)
    trained = timm.create_model("tf_efficientnet_lite0")
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "tf_efficientnet_lite0", "pretrained_cfg": {"input_size": [3, 224, 224]}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = Patchcore(backbone=f"local-dir:{tmp_path}", layers=["blocks.2"], pre_trained=True)
    loaded = model.model.feature_extractor.feature_extractor
    torch.testing.assert_close(loaded.conv_stem.weight, trained.conv_stem.weight)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    model = EfficientAd()
    with pytest.raises(ValueError, match=r"model\.teacher from .*none\.pth, which does not exist"):
        use_local_weights(model, {"model.teacher": str(tmp_path / "none.pth")})
    save_file(load_backbone_state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(RuntimeError, match="conv1"):
        use_local_weights(model, {"model.teacher": str(tmp_path / "other.safetensors")})


class Deadly(EfficientAd):
    """A model whose construction ends the process, as a lack of memory does."""

    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_whose_process_dies_is_a_row(tmp_path, few):
    result = run_isolated(spec(model=f"{__name__}.Deadly", data_args={"root": str(few)}), tmp_path / "run.log")
    assert result.row["status"] == "failed: the process was ended by SIGKILL, perhaps for lack of memory"
    assert result.row["model"] == "Model"


def test_the_log_of_a_failed_run_holds_its_traceback(tmp_path):
    result = run_isolated(spec(model="NoSuchModel"), tmp_path / "run.log")
    assert result.row["status"].startswith("failed: AttributeError")
    assert "NoSuchModel" in result.row["status"]
    assert "Traceback" in (tmp_path / "run.log").read_text(encoding="utf-8")
