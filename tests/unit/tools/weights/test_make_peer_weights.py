# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""anomalib's own models read the bundled weights from the files of make_peer_weights.py."""

import sys

import torch
from anomalib.models import EfficientAd, Patchcore

from anomalib_vmpfd.weights import load_backbone_state_dict, load_pdn_state_dict


def test_peers_start_from_the_bundled_weights(tmp_path, monkeypatch):
    import make_peer_weights

    monkeypatch.setattr(sys, "argv", ["make_peer_weights.py", "--out", str(tmp_path)])
    make_peer_weights.main()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    peer = EfficientAd()
    peer.prepare_pretrained_model()
    torch.testing.assert_close(dict(peer.model.teacher.state_dict()), load_pdn_state_dict("bundled"), rtol=0, atol=0)

    folder = tmp_path / "timm" / "efficientnet_lite2"
    patchcore = Patchcore(backbone=f"local-dir:{folder}", layers=["blocks.1", "blocks.2", "blocks.4"])
    extractor = patchcore.model.feature_extractor.feature_extractor
    for name, value in load_backbone_state_dict().items():
        torch.testing.assert_close(extractor.state_dict()[name], value, rtol=0, atol=0)
