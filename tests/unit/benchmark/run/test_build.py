# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Building models: local weights in place of downloads."""

import json

import pytest
import timm
import torch
from anomalib.models import EfficientAd, Patchcore
from safetensors.torch import save_file

from anomalib_vmpfd.benchmark.run.build import use_local_weights
from anomalib_vmpfd.weights import load_backbone_state_dict


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
