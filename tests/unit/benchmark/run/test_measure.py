# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""One run: trained without a network, measured with the threshold of the final weights."""

import shutil

import pytest
import torch
import toy
from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork
from safetensors.torch import save_file
from specs import spec

from anomalib_vmpfd.benchmark.run.measure import measure


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


def test_an_interrupted_training_continues_from_its_last_epoch(few, tmp_path, monkeypatch):
    data = {"root": str(few), "category": "washer", "num_workers": 0, "val_split_mode": "none", "seed": 0}
    trainer = {"accelerator": "cpu", "max_epochs": 3, "limit_val_batches": 0}
    training = tmp_path / "trainings" / "toy.ckpt"
    run = {"model": "toy.LocalContrast", "args": {"lr": 0.02}, "data_args": data, "trainer": trainer}
    whole = measure(spec(**run))

    start, epochs = toy.LocalContrast.on_train_epoch_start, []

    def watched(model) -> None:
        epochs.append(model.current_epoch)
        if epochs == [0, 1, 2]:
            msg = "power failure"
            raise RuntimeError(msg)
        start(model)

    monkeypatch.setattr(toy.LocalContrast, "on_train_epoch_start", watched)
    with pytest.raises(RuntimeError, match="power failure"):
        measure(spec(**run, training=str(training)))
    assert training.is_file()
    resumed = measure(spec(**run, training=str(training)))
    assert epochs == [0, 1, 2, 2]
    assert not training.exists()
    assert resumed.row["train_epochs"] == whole.row["train_epochs"] == 3
    assert resumed.row["train_seconds"] > 0
    assert resumed.predictions["scores"] == whole.predictions["scores"]
    assert resumed.predictions["losses"] == whole.predictions["losses"]
    assert {len(values) for values in resumed.predictions["losses"].values()} == {3}
