# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""anomalib's models whose encoder is always pre-trained, from local files."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from specs import spec

from anomalib_vmpfd.benchmark.run import build as module
from anomalib_vmpfd.benchmark.run.build import build
from anomalib_vmpfd.benchmark.run.spec import runs
from anomalib_vmpfd.benchmark.suite import load_suite

SUITE = load_suite(Path(__file__).parents[4] / "configs" / "benchmark" / "peers.yaml")
PEERS = {run.key.model: run for run in runs(SUITE) if run.key.category == "screw" and run.weights}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", PEERS)
def test_every_peer_is_built_without_a_download(name, monkeypatch):
    """The arguments fit and all that is pre-trained is named; without values, as one has 840 million parameters."""
    named = []
    monkeypatch.setattr(
        module, "use_local_weights", lambda model, weights: named.extend(map(model.get_submodule, weights))
    )
    with torch.device("meta"):
        build(PEERS[name])
    assert [sum(value.numel() for value in network.parameters()) > 1e6 for network in named] == [True]


@pytest.mark.usefixtures("no_network")
def test_a_hard_wired_encoder_takes_the_file_and_not_the_rest_of_it(tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model("resnet10t")  # with layer4 and classifier
    path = tmp_path / "resnet10t.safetensors"
    save_file(whole.state_dict(), path)
    target = "model.feature_extractor.feature_extractor.feature_extractor"
    run = {
        "model": "Supersimplenet",
        "args": {"backbone": "resnet10t", "layers": ["layer2", "layer3"]},
        "data_args": {"root": str(tmp_path)},
    }
    model, _, _ = build(spec(**run, weights={target: str(path)}))
    loaded = model.get_submodule(target).state_dict()
    assert "layer3.0.conv1.weight" in loaded
    assert not [name for name in loaded if name.startswith(("layer4", "fc"))]
    for key, value in loaded.items():
        torch.testing.assert_close(value, whole.state_dict()[key])
    with pytest.raises(ValueError, match=f"would download {target}; name a file for it"):
        build(spec(**run, weights={"model.segdec": str(path)}))
