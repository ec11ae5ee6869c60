# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Write the bundled weights in the forms anomalib's own models read, to compare peers at the same prior knowledge.

    python tools/weights/make_peer_weights.py --out runs/peers

- ``timm/efficientnet_lite2``: a folder for timm's ``local-dir:``, so that Patchcore and others run offline with
  ``backbone="local-dir:runs/peers/timm/efficientnet_lite2"`` and layers of "blocks.0", "blocks.1", "blocks.2",
  "blocks.4". (anomalib takes a backbone with "vit" in its name for a transformer: keep it out of the path.)
- ``cache``: EfficientAd finds the bundled PDN as its teacher under ``XDG_CACHE_HOME=runs/peers/cache``. It is not
  written into the user's cache, where it would pass for the official teacher.
"""

import argparse
import json
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from anomalib_vmpfd.weights import load_backbone_state_dict, load_pdn_state_dict

BACKBONE = "tf_efficientnet_lite2"


def main() -> None:
    """Write both."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--pdn", default="bundled", help='source of the PDN: "bundled" or a path')
    args = p.parse_args()

    folder = args.out / "timm" / "efficientnet_lite2"
    folder.mkdir(parents=True, exist_ok=True)
    # Stages 5 and 6 are not part of it: timm leaves them at random, and no layer up to blocks.4 reads them.
    save_file(load_backbone_state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    cfg = timm.get_pretrained_cfg(BACKBONE).to_dict()
    cfg = {
        key: cfg[key]
        for key in ("input_size", "mean", "std", "interpolation", "num_classes", "classifier", "first_conv")
    }
    (folder / "config.json").write_text(
        json.dumps({"architecture": BACKBONE, "pretrained_cfg": cfg}, indent=2) + "\n", encoding="utf-8"
    )

    cache = args.out / "cache"
    teacher = cache / "anomalib" / "pre_trained" / "efficientad_pretrained_weights" / "pretrained_teacher_small.pth"
    teacher.parent.mkdir(parents=True, exist_ok=True)
    torch.save(load_pdn_state_dict(args.pdn), teacher)
    print(f'Patchcore: backbone="local-dir:{folder}", layers=["blocks.1", "blocks.2", "blocks.4"]')
    print(f"EfficientAd: XDG_CACHE_HOME={cache.resolve()}")


if __name__ == "__main__":
    main()
