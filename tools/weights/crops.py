# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Training crops for the distillation: a pure function of their seed, so that a run can continue anywhere."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SPLIT_SEED = 0
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


class Crops:
    """Seeded random crops of a folder of images; decoded images stay in memory (0.25 MB each at 256 px).

    Args:
        folder (Path): Searched recursively.
        crop (int): Side of a crop in pixels; smaller images are enlarged to it.
        held_out (int): Images that are not trained on, drawn with a fixed seed.

    Raises:
        ValueError: If the folder holds no more images than are held out.
    """

    def __init__(self, folder: Path, crop: int, held_out: int) -> None:
        paths = sorted(q for q in folder.rglob("*") if q.suffix.lower() in SUFFIXES)
        if len(paths) <= held_out:
            msg = f"{folder} holds {len(paths)} images, but {held_out} are held out; give a larger folder to --images."
            raise ValueError(msg)
        order = np.random.default_rng(SPLIT_SEED).permutation(len(paths))
        self.held_out = [paths[i] for i in order[:held_out]]
        self.train = [paths[i] for i in order[held_out:]]
        self.crop = crop
        self.cache: dict[Path, np.ndarray] = {}

    def image(self, path: Path) -> Image.Image:
        """Decode once, at least one crop large."""
        if path not in self.cache:
            image = Image.open(path).convert("RGB")
            if min(image.size) < self.crop:
                factor = self.crop / min(image.size)
                image = image.resize([math.ceil(side * factor) for side in image.size], Image.Resampling.BICUBIC)
            self.cache[path] = np.asarray(image)
        return Image.fromarray(self.cache[path])

    def batch(self, size: int, *key: int) -> Tensor:
        """Random crops (size, 3, crop, crop) in [0, 1], a pure function of ``key``.

        Any scale from a half to 1.5, the 8 symmetries of the square, a third of them grey (as many industrial cameras
        are), brightness and contrast jittered.
        """
        rng = np.random.default_rng(key)
        crops = np.empty((size, self.crop, self.crop, 3), dtype=np.uint8)
        for k, index in enumerate(rng.choice(len(self.train), size, replace=size > len(self.train))):
            image = self.image(self.train[index])
            side = min(self.crop / math.exp(rng.uniform(math.log(0.5), math.log(1.5))), *image.size)
            x, y = rng.uniform(0, image.width - side), rng.uniform(0, image.height - side)
            box = (x, y, x + side, y + side)
            crop = np.asarray(image.resize((self.crop, self.crop), Image.Resampling.BILINEAR, box=box))
            crop = np.rot90(crop, rng.integers(4))
            crops[k] = crop[:, ::-1] if rng.random() < 0.5 else crop
        x = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
        grey = torch.from_numpy(rng.random((size, 1, 1, 1)) < 1 / 3)
        x = torch.where(grey, (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True), x)
        gain, shift = (torch.from_numpy(rng.uniform(-1, 1, (2, size, 1, 1, 1))).float() * 0.25).unbind()
        return ((x - 0.5) * (1 + gain) + 0.5 + shift * 0.5).clamp(0, 1)

    def held_out_batches(self, size: int) -> list[Tensor]:
        """Centre crops of the held-out images at their own scale."""
        crops = []
        for path in self.held_out:
            image = self.image(path)
            x, y = (image.width - self.crop) // 2, (image.height - self.crop) // 2
            crops.append(np.asarray(image.crop((x, y, x + self.crop, y + self.crop))))
        x = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
        return list(x.split(size))
