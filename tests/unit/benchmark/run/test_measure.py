# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""One run: trained without a network, measured with the threshold of the final weights."""

import shutil

import pytest
import torch
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
