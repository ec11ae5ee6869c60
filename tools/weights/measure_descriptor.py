# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Measure what a patch descriptor is worth, without a model around it, and write one row a run to a CSV.

    python tools/weights/measure_descriptor.py --data ../shared/data --out results/descriptor/worth.csv

Descriptors: the bundled PDN, the same network with random weights (the floor), and the teacher's own features
(blocks 1-4) on the same cells (the ceiling). All are averaged to 28 x 28 cells at 256 px and normalised per channel on
normal training images. Scorers: distance to the nearest of 4,000 training vectors, random ones or a greedy coreset, and
the Mahalanobis distance to one Gaussian of all training vectors. Maps are blurred (sigma 4 px); an image scores the
maximum of its map.
"""

import argparse
import csv
import ctypes
import logging
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import winograd
from anomalib.data.datasets.image.mvtecad import make_mvtec_ad_dataset
from anomalib.metrics.aupro import _AUPRO
from anomalib.models.components import KCenterGreedy
from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork, imagenet_norm_batch
from pandas import DataFrame
from pdn_teacher import PDN_FIELD, PDN_STRIDE, TeacherOnPdnGrid, load_teacher
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torchmetrics.functional.classification import binary_auroc
from torchvision.transforms.v2.functional import gaussian_blur

from anomalib_vmpfd.nn.grid import Axis, interpolation_matrix
from anomalib_vmpfd.weights import load_pdn_state_dict

logger = logging.getLogger("measure_descriptor")
DATASETS = {"screw": "mvtec_ad/screw", "magnetic_tile": "magnetic_tile", "kolektorsdd": "kolektorsdd"}
SIZE = 256
BANK, POOL = 4000, 40000
TEACHER_LAYERS = ("blocks.1", "blocks.2", "blocks.3", "blocks.4")
Descriptor = Callable[[Tensor], Tensor]


def pdn(state: dict[str, Tensor]) -> Descriptor:
    """Patch descriptors of PDN-S with these weights: (B, 3, 256, 256) to (B, 384, 56, 56)."""

    def describe(x: Tensor) -> Tensor:
        x = imagenet_norm_batch(x).contiguous(memory_format=torch.channels_last)
        x = F.avg_pool2d(F.conv2d(x, state["conv1.weight"], state["conv1.bias"]).relu_(), 2)
        x = F.avg_pool2d(winograd.conv2d(x, state["conv2.weight"], state["conv2.bias"]).relu_(), 2)
        x = winograd.conv2d(x, state["conv3.weight"], state["conv3.bias"]).relu_()
        return winograd.conv2d(x, state["conv4.weight"], state["conv4.bias"])

    return describe


def make_descriptor(name: str, seed: int, weights: str) -> Descriptor:
    """Descriptor by name: "pdn" (``weights``), "random" (PyTorch's initialisation) or "teacher"."""
    if name == "pdn":
        return pdn(load_pdn_state_dict(weights))
    if name == "random":
        torch.manual_seed(seed)
        return pdn(SmallPatchDescriptionNetwork(384).requires_grad_(requires_grad=False).state_dict())
    teacher = TeacherOnPdnGrid(load_teacher(), TEACHER_LAYERS).to(memory_format=torch.channels_last)
    return lambda x: torch.cat(list(teacher(x).values()), dim=1)


def batches(samples: DataFrame, size: int = 8) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, 3, 256, 256) in [0, 1] and masks (B, 256, 256)."""
    for start in range(0, len(samples), size):
        images, masks = [], []
        for row in samples.iloc[start : start + size].itertuples():
            image = Image.open(row.image_path).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255)
            mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
            if row.mask_path:
                resized = Image.open(row.mask_path).convert("L").resize((SIZE, SIZE), Image.Resampling.NEAREST)
                mask = torch.from_numpy(np.array(resized)) > 0
            masks.append(mask)
        yield torch.stack(images), torch.stack(masks)


def vectors(describe: Descriptor, images: Tensor) -> Tensor:
    """Descriptors averaged over 2 x 2 cells: (B, 784, C)."""
    return F.avg_pool2d(describe(images), 2).flatten(2).mT


class RandomBank:
    """Distance to the nearest of ``BANK`` random training vectors."""

    name = "nearest_of_4000_random"

    def __init__(self, train: Tensor, rng: torch.Generator) -> None:
        self.bank = train[torch.randperm(len(train), generator=rng)[:BANK]]

    def __call__(self, x: Tensor) -> Tensor:
        """Score vectors (N, C)."""
        return torch.cdist(x, self.bank).amin(dim=1)


class GreedyBank(RandomBank):
    """Distance to the nearest of ``BANK`` training vectors, a greedy coreset of ``POOL`` random ones."""

    name = "nearest_of_4000_greedy"

    def __init__(self, train: Tensor, rng: torch.Generator) -> None:
        pool = train[torch.randperm(len(train), generator=rng)[:POOL]]
        projected = pool @ torch.randn(pool.shape[1], 64, generator=rng)  # 3-D input: anomalib does not project again
        self.bank = pool[KCenterGreedy(projected[:, None], sampling_ratio=BANK / len(pool)).select_coreset_idxs()]


class Gaussian:
    """Mahalanobis distance to one Gaussian, its covariance shrunk by 1 % of the mean variance."""

    name = "gaussian"

    def __init__(self, train: Tensor, _rng: torch.Generator) -> None:
        self.mean = train.mean(dim=0)
        covariance = torch.cov((train - self.mean).T.double())
        covariance += 0.01 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
        self.whiten = torch.linalg.inv(torch.linalg.cholesky(covariance)).T.float()

    def __call__(self, x: Tensor) -> Tensor:
        """Score vectors (N, C)."""
        return ((x - self.mean) @ self.whiten).norm(dim=1)


@torch.inference_mode()
def measure(describe: Descriptor, samples: DataFrame, seed: int, train_images: int) -> Iterator[dict]:
    """Fit both scorers on normal training images, score the test images."""
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # the coreset's own
    normal = samples[samples.split == "train"]
    normal = normal.iloc[torch.randperm(len(normal), generator=rng)[:train_images].tolist()]
    train = torch.cat([vectors(describe, images).flatten(0, 1) for images, _ in batches(normal)])
    std, mean = torch.std_mean(train, dim=0)
    train = (train - mean) / std.clamp_min(1e-6)
    scorers = [RandomBank(train, rng), GreedyBank(train, rng), Gaussian(train, rng)]
    test = samples[samples.split == "test"]
    scores, masks = [[] for _ in scorers], []
    for images, mask in batches(test):
        x = ((vectors(describe, images) - mean) / std.clamp_min(1e-6)).flatten(0, 1)
        masks.append(mask)
        for scorer, kept in zip(scorers, scores, strict=True):
            kept.append(scorer(x).view(len(images), -1))
    masks, labels = torch.cat(masks), torch.tensor(test.label_index.to_numpy())
    cells = int(scores[0][0].shape[1] ** 0.5)
    axis = Axis(2 * cells, PDN_STRIDE, (PDN_FIELD - 1) / 2).pooled(cells, 2)
    upsample = interpolation_matrix(axis, Axis(SIZE, 1.0, 0.0))
    for scorer, kept in zip(scorers, scores, strict=True):
        maps = upsample @ torch.cat(kept).view(-1, cells, cells) @ upsample.T
        maps = gaussian_blur(maps[:, None], [25, 25], [4.0, 4.0])[:, 0]
        low, high = maps.min(), maps.max()
        maps = (maps - low) / (high - low)  # torchmetrics would squash values outside [0, 1]
        aupro = _AUPRO()
        aupro.update(maps, masks.int())
        yield {
            "scorer": scorer.name,
            "train_images": len(normal),
            "test_images": len(test),
            "image_AUROC": binary_auroc(maps.amax(dim=(1, 2)), labels).item(),
            "pixel_AUROC": binary_auroc(maps.flatten(), masks.int().flatten()).item(),
            "AUPRO": aupro.compute().item(),
        }


def table(path: Path) -> str:
    """Markdown table of a CSV, and what the PDN closes of the distance from "random" to "teacher" on average."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = DataFrame(csv.DictReader(file))
    metrics = ["image_AUROC", "pixel_AUROC", "AUPRO"]
    rows[metrics] = 100 * rows[metrics].astype(float)
    mean = rows.groupby(["scorer", "dataset", "descriptor"])[metrics].mean()  # over seeds
    names = ["random", "pdn", "teacher"]
    lines = [
        "| scorer | data set | " + " | ".join(f"{metric} {name}" for metric in metrics for name in names) + " |",
        "|---|---|" + "---|" * (len(metrics) * len(names)),
    ]
    for (scorer, dataset), group in mean.groupby(level=["scorer", "dataset"]):
        values = [f"{group.loc[(scorer, dataset, name), metric]:.1f}" for metric in metrics for name in names]
        lines.append(f"| {scorer} | {dataset} | {' | '.join(values)} |")
    for scorer, group in mean.groupby(level=["scorer", "descriptor"]).mean().groupby(level="scorer"):
        value = group.loc[scorer]
        closed = (value.loc["pdn"] - value.loc["random"]) / (value.loc["teacher"] - value.loc["random"])
        shares = ", ".join(f"{metric} {100 * closed[metric]:.0f} %" for metric in metrics)
        lines.append(
            f"\n{scorer}: on the mean of the sets the PDN closes of the distance from random to teacher: {shares}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing in the CSV: a killed run continues."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder with mvtec_ad/screw, magnetic_tile and kolektorsdd")
    p.add_argument("--out", type=Path, required=True, help="CSV; rows of runs that it holds are not repeated")
    p.add_argument("--weights", default="bundled", help='source of the PDN: "bundled", "official" or a path')
    p.add_argument("--datasets", nargs="+", default=list(DATASETS), choices=list(DATASETS))
    p.add_argument("--descriptors", nargs="+", default=["random", "teacher", "pdn"])
    p.add_argument("--train-images", type=int, default=160, help="normal training images, drawn at random")
    p.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = p.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    done = set()
    if args.out.exists():
        with args.out.open(newline="", encoding="utf-8") as file:
            done = {(r["dataset"], r["descriptor"], int(r["seed"])) for r in csv.DictReader(file)}
    for dataset in args.datasets:
        samples = make_mvtec_ad_dataset(args.data / DATASETS[dataset], extensions=(".png", ".jpg"))
        for seed in args.seeds:
            for name in args.descriptors:
                if (dataset, name, seed) in done:
                    continue
                start = time.perf_counter()
                describe = make_descriptor(name, seed, args.weights)
                rows = [
                    {"dataset": dataset, "descriptor": name, "seed": seed, **row}
                    for row in measure(describe, samples, seed, args.train_images)
                ]
                for row in rows:
                    row |= {"seconds": round(time.perf_counter() - start, 1), "commit": commit}
                    row |= {k: round(v, 4) for k, v in row.items() if isinstance(v, float)}
                    logger.info("%s", row)
                new = not args.out.exists()
                args.out.parent.mkdir(parents=True, exist_ok=True)
                with args.out.open("a", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, list(rows[0]))
                    if new:
                        writer.writeheader()
                    writer.writerows(rows)
    print(table(args.out))


if __name__ == "__main__":
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        # glibc: map large tensors on their own; in the heap, each index of the coreset pins a hole (17 GB in all).
        libc.mallopt(-3, 2**20)
    main()
