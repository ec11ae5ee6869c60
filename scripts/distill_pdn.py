# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Distil a timm backbone into anomalib's SmallPatchDescriptionNetwork (EfficientAD's PDN-S).

    python scripts/distill_pdn.py --images ../shared/data/natural --out runs/pdn --minutes 120

The student sees crops at their size, the teacher at twice their size (EfficientAD, arXiv 2303.14535, appendix A.3); the
loss is the mean squared error of targets normalised per channel, so 1 is the variance of the targets. Kill it at
any moment and start the same command again: it continues with the same data order and schedule. Every step draws
its crops from a generator seeded by (seed, step), so there is no random state to store.
"""

import argparse
import ctypes
import hashlib
import json
import logging
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork, imagenet_norm_batch
from pdn_teacher import LAYERS, TEACHER, TeacherOnPdnGrid, load_teacher
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812

logger = logging.getLogger("distill_pdn")
HELD_OUT_SEED = 0


def parse_args() -> argparse.Namespace:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--images", type=Path, required=True, help="folder of photographs and textures, searched recursively")
    p.add_argument("--out", type=Path, required=True, help="run folder: checkpoint.pt, log.jsonl, pdn_small.safetensors")
    budget = p.add_mutually_exclusive_group(required=True)
    budget.add_argument("--steps", type=int, help="length of the schedule in steps")
    budget.add_argument("--minutes", type=float, help="length of the schedule in minutes of training, restarts summed")
    p.add_argument("--teacher", default=TEACHER, help="timm model name")
    p.add_argument("--teacher-weights", default="package", help='"package", "timm" or a safetensors file')
    p.add_argument("--layers", nargs="+", default=list(LAYERS), help="teacher layers, at most 384 channels together")
    p.add_argument("--crop", type=int, default=128, help="side of a crop in pixels, a multiple of 16")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--optimizer", choices=["muon", "adam"], default="muon")
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--warmup", type=float, default=0.01, help="fraction of the schedule")
    p.add_argument("--ema", type=float, default=0.99, help="decay of the weight average that is evaluated and saved")
    p.add_argument("--held-out", type=int, default=64, help="images kept for the held-out loss")
    p.add_argument("--evaluate-seconds", type=float, default=300)
    p.add_argument("--checkpoint-seconds", type=float, default=120)
    p.add_argument("--statistics-crops", type=int, default=256, help="crops for the channel statistics")
    p.add_argument("--refit-crops", type=int, default=1024, help="crops for the last ridge regression of the last layer")
    p.add_argument("--first-refit-crops", type=int, default=192, help="the same before the first step")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    return p.parse_args()


def keep_freed_memory() -> None:
    """Let glibc reuse freed blocks instead of returning each large tensor to the system, whose fresh pages cost a third
    of a step on a CPU.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_mmap_max = -1, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


class Crops:
    """Seeded random crops of a folder of images; decoded images stay in memory (0.25 MB each at 256 px)."""

    def __init__(self, folder: Path, crop: int, held_out: int) -> None:
        paths = sorted(q for q in folder.rglob("*") if q.suffix.lower() in {".jpg", ".jpeg", ".png", ".bmp", ".webp"})
        if len(paths) <= held_out:
            msg = f"{folder} holds {len(paths)} images, but {held_out} are held out; give a larger folder to --images."
            raise ValueError(msg)
        order = np.random.default_rng(HELD_OUT_SEED).permutation(len(paths))
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
        """Random crops (size, 3, crop, crop) in [0, 1], a pure function of ``key``: any scale from a half to 1.5,
        the 8 symmetries of the square, a third of them grey (industrial cameras often are), contrast jittered.
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


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised per matrix (Jordan et al. 2024), update scaled to AdamW's (Liu et al., arXiv 2502.16982).

    ``torch.optim.Muon`` iterates Newton-Schulz in bfloat16, which many CPUs only emulate. The matrices here have 128 to
    384 rows, for which the eigenvectors of the Gram matrix are cheaper and exact.
    """

    def __init__(self, params: list[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        """Update every matrix."""
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"])
                values, vectors = torch.linalg.eigh(update @ update.T)
                root = values.clamp_min(1e-7 * values[-1] + 1e-30).rsqrt()
                update = (vectors * root) @ (vectors.T @ update)
                p.add_(update, alpha=-group["lr"] * 0.2 * max(p.shape) ** 0.5)


class Distillation:
    """Teacher, student, optimizer and their schedule; one object so that a checkpoint is one dictionary."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.bf16 = self.device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001
        self.crops = Crops(args.images, args.crop, args.held_out)
        teacher = TeacherOnPdnGrid(load_teacher(args.teacher, args.teacher_weights), args.layers)
        self.teacher = teacher.to(self.device, memory_format=torch.channels_last)
        self.held_out = [x.to(self.device) for x in self.crops.held_out_batches(args.batch)]
        torch.manual_seed(args.seed)
        self.student = SmallPatchDescriptionNetwork(384).to(self.device).requires_grad_(False)
        self.shapes = {name: p.shape for name, p in self.student.named_parameters()}
        # Matrices (out, in * k * k) as Muon wants them; the convolutions see them reshaped.
        self.params = {n: p.detach().flatten(1) if p.ndim > 1 else p for n, p in self.student.named_parameters()}
        self.step, self.seconds = 0, 0.0

    # ---------------------------------------------------------------- forward passes
    def autocast(self) -> torch.autocast:
        """bfloat16 for both networks where the hardware has it (emulated it is 4-7 times slower than float32); the
        loss, the weights and the statistics stay in float32.
        """
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def weights(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Parameters in the shapes of the student's state dict."""
        return {name: p.view(self.shapes[name]) for name, p in params.items()}

    @torch.no_grad()
    def raw_targets(self, x: Tensor) -> Tensor:
        """Teacher channels on the student's grid (B, C, h, w), not normalised."""
        with self.autocast():
            features = self.teacher(x)
        return torch.cat([features[layer] for layer in self.args.layers], dim=1)

    def targets(self, x: Tensor) -> Tensor:
        """Teacher channels on the student's grid, normalised per channel."""
        return self.raw_targets(x).sub_(self.mean).div_(self.std)

    def predict(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
        """Student output (B, 384, h, w); float32."""
        with self.autocast():
            x = x.contiguous(memory_format=torch.channels_last)
            return functional_call(self.student, self.weights(params), (x,)).float()

    def loss(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
        """Mean squared error per channel (C,), in units of the target's variance."""
        target = self.targets(x)
        return (self.predict(params, x)[:, : target.shape[1]] - target).square().mean(dim=(0, 2, 3))

    @torch.no_grad()
    def held_out_loss(self) -> dict[str, float]:
        """Held-out loss: all channels and each layer."""
        per_channel = sum(self.loss(self.average, x) * len(x) for x in self.held_out) / self.args.held_out
        by_layer = zip(self.args.layers, per_channel.split(self.channels), strict=True)
        return {"held_out": per_channel.mean().item(), **{layer: v.mean().item() for layer, v in by_layer}}

    # ---------------------------------------------------------------- start
    @torch.no_grad()
    def initialise(self) -> None:
        """Channel statistics of the teacher, then data-dependent initialisation of the student layer by layer: every
        channel starts with mean 0 and variance 1 (PyTorch's default lets the signal shrink), the last layer by ridge.
        """
        args = self.args
        batches = [self.crops.batch(args.batch, args.seed, 1, k) for k in range(-(-args.statistics_crops // args.batch))]
        batches = [x.to(self.device) for x in batches]
        total, square, count = 0.0, 0.0, 0
        for x in batches:
            t = self.raw_targets(x).double()
            total, square, count = total + t.sum((0, 2, 3)), square + t.square().sum((0, 2, 3)), count + t[:, 0].numel()
        mean = total / count
        self.mean = mean.float()[:, None, None]
        self.std = (square / count - mean.square()).clamp_min(1e-8).sqrt().float()[:, None, None]
        weights = self.weights(self.params)
        h = imagenet_norm_batch(batches[0])
        for layer, pool in (("conv1", True), ("conv2", True), ("conv3", False)):
            w, b = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
            torch.nn.init.orthogonal_(w)
            std, centre = torch.std_mean(F.conv2d(h, w), dim=(0, 2, 3))
            w.div_(std[:, None, None, None])
            b.copy_(-centre / std)
            h = F.relu(F.conv2d(h, w, b))
            h = F.avg_pool2d(h, 2) if pool else h
        weights["conv4.weight"].zero_(), weights["conv4.bias"].zero_()

    def setup(self) -> None:
        """Optimizer over the parameters; the channels of each layer."""
        args = self.args
        for p in self.params.values():
            p.requires_grad_()
        matrices = [p for p in self.params.values() if p.ndim > 1]
        vectors = [p for p in self.params.values() if p.ndim == 1]
        if args.optimizer == "muon":
            self.optimizers = [
                Muon(matrices, lr=args.lr),
                torch.optim.Adam(vectors, betas=(0.9, 0.99)),
            ]
        else:
            self.optimizers = [torch.optim.Adam([*matrices, *vectors], betas=(0.9, 0.99))]

    @property
    def channels(self) -> list[int]:
        """Channels of each teacher layer."""
        if not hasattr(self, "_channels"):
            features = self.teacher(self.held_out[0][:1])
            self._channels = [features[layer].shape[1] for layer in self.args.layers]
        return self._channels

    # ---------------------------------------------------------------- ridge regression of the last layer
    @torch.no_grad()
    def refit(self, params: dict[str, Tensor], stream: int, crops: int) -> dict[str, Tensor]:
        """Solve the last convolution in closed form (ridge towards its present weights) on fresh crops, and keep the
        penalty, or the present weights, with the lowest held-out loss.
        """
        size = self.shapes["conv4.weight"][1:].numel()
        gram = torch.zeros(size + 1, size + 1, device=self.device)
        cross = torch.zeros(size + 1, sum(self.channels), device=self.device)
        w = self.weights(params)
        rows_seen = 0
        rng = torch.Generator().manual_seed(self.args.seed)

        def hidden(x: Tensor) -> Tensor:
            with self.autocast():
                h = imagenet_norm_batch(x).contiguous(memory_format=torch.channels_last)
                h = F.avg_pool2d(F.relu(F.conv2d(h, w["conv1.weight"], w["conv1.bias"])), 2)
                h = F.avg_pool2d(F.relu(F.conv2d(h, w["conv2.weight"], w["conv2.bias"])), 2)
                return F.relu(F.conv2d(h, w["conv3.weight"], w["conv3.bias"]))

        last = torch.cat([params["conv4.weight"], params["conv4.bias"][:, None]], dim=1)[: cross.shape[1]].T
        for k in range(-(-crops // self.args.batch)):
            x = self.crops.batch(self.args.batch, self.args.seed, stream, k).to(self.device)
            patches, target = F.unfold(hidden(x).float(), 4), self.targets(x).flatten(2)
            # neighbouring cells say nearly the same: a random fifth of them
            keep = torch.randperm(target.shape[2], generator=rng)[: max(1, target.shape[2] // 5)].to(self.device)
            rows = patches[:, :, keep].permute(0, 2, 1).reshape(-1, size)
            rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
            gram.addmm_(rows.T, rows)
            cross.addmm_(rows.T, target[:, :, keep].permute(0, 2, 1).reshape(len(rows), -1) - rows @ last)
            rows_seen += len(rows)
        best, best_loss, report = params, self.evaluate(params), []
        scale = gram.diagonal()[:-1].mean()
        for penalty in (1e-4, 1e-3, 1e-2, 1e-1):
            ridge = torch.full((size + 1,), float(penalty * scale), device=self.device)
            ridge[-1] = 1e-6 * scale
            delta = torch.linalg.solve(gram + ridge.diag(), cross)
            trial = dict(params)
            trial["conv4.weight"] = params["conv4.weight"].detach().clone()
            trial["conv4.bias"] = params["conv4.bias"].detach().clone()
            trial["conv4.weight"][: delta.shape[1]] += delta[:-1].T
            trial["conv4.bias"][: delta.shape[1]] += delta[-1]
            loss = self.evaluate(trial)
            report.append(f"{penalty:g}: {loss:.4f}")
            if loss < best_loss:
                best, best_loss = trial, loss
        logger.info("ridge on %d rows, held-out loss by penalty %s; kept %.4f", rows_seen, ", ".join(report), best_loss)
        return best

    @torch.no_grad()
    def evaluate(self, params: dict[str, Tensor]) -> float:
        """Held-out loss of any parameters."""
        total = sum(self.loss(params, x).mean().item() * len(x) for x in self.held_out)
        return total / self.args.held_out

    # ---------------------------------------------------------------- training
    def progress(self) -> float:
        """Fraction of the schedule that is done."""
        return self.step / self.args.steps if self.args.steps else self.seconds / (60 * self.args.minutes)

    def train_step(self) -> float:
        """One step; the learning rate rises linearly, then falls as a cosine to 0 at the end of the schedule."""
        args, done = self.args, self.progress()
        rise = min(1.0, (done + 1e-4) / args.warmup) if args.warmup else 1.0
        lr = args.lr * rise * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        x = self.crops.batch(args.batch, args.seed, 0, self.step).to(self.device)
        loss = self.loss(self.params, x).mean()
        loss.backward()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        decay = min(args.ema, self.step / (self.step + 10))
        for name, p in self.params.items():
            self.average[name].lerp_(p.detach(), 1 - decay)
        self.lr = lr
        return loss.item()

    def state_dict(self) -> dict:
        """Everything a continued run needs."""
        return {
            "params": self.params,
            "average": self.average,
            "optimizers": [o.state_dict() for o in self.optimizers],
            "mean": self.mean,
            "std": self.std,
            "step": self.step,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from a checkpoint."""
        with torch.no_grad():
            for name, p in self.params.items():
                p.copy_(state["params"][name])
        self.average = state["average"]
        self.mean, self.std = state["mean"], state["std"]
        self.step, self.seconds = state["step"], state["seconds"]
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)


def write_atomically(path: Path, write) -> None:
    """Write beside ``path`` and rename, so that a kill leaves the old file or the new one."""
    part = path.with_name(path.name + ".part")
    write(part)
    os.replace(part, path)


def save_student(run: Distillation, params: dict[str, Tensor], path: Path) -> None:
    """Save as float16 safetensors under the names of anomalib's SmallPatchDescriptionNetwork."""
    tensors = {n: w.detach().to("cpu", torch.float16).contiguous() for n, w in run.weights(params).items()}
    write_atomically(path, lambda part: save_file(tensors, part, metadata={"step": str(run.step)}))
    logger.info("%s sha256 %s", path, hashlib.sha256(path.read_bytes()).hexdigest())


def main() -> None:
    """Train to the end of the schedule, refit the last layer, save."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint, log, result = (args.out / name for name in ("checkpoint.pt", "log.jsonl", "pdn_small.safetensors"))
    run = Distillation(args)
    free = {"images", "out", "minutes", "steps", "evaluate_seconds", "checkpoint_seconds", "refit_crops", "threads"}
    settings = {k: str(v) for k, v in vars(args).items() if k not in free}
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=run.device, weights_only=True)
        if state.pop("settings") != settings:
            msg = f"{checkpoint} comes from other settings; give the same arguments or a new --out."
            raise SystemExit(msg)
        run.setup()
        run.load_state_dict(state)
        lines = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= run.step]
        log.write_text("".join(f"{line}\n" for line in lines))
        logger.info("continuing at step %d", run.step)
    else:
        run.initialise()
        run.average = run.params
        run.params = {n: p.clone() for n, p in run.refit(run.params, 2, args.first_refit_crops).items()}
        run.setup()
        run.average = {n: p.detach().clone() for n, p in run.params.items()}
        log.write_text("")

    def save() -> None:
        write_atomically(checkpoint, lambda part: torch.save({**run.state_dict(), "settings": settings}, part))

    def record(losses: list[float]) -> None:
        row = {"step": run.step, "seconds": round(run.seconds, 1), "lr": run.lr, "train": sum(losses) / max(1, len(losses))}
        row |= run.held_out_loss()
        with log.open("a") as file:
            file.write(json.dumps({k: round(v, 6) for k, v in row.items()}) + "\n")
        logger.info("%s", row)

    run.lr, losses = 0.0, []
    saved = evaluated = run.seconds
    if run.step == 0:
        record([])
        save()
    while run.progress() < 1:
        start = time.perf_counter()
        losses.append(run.train_step())
        run.seconds += time.perf_counter() - start
        if run.progress() >= 1 or run.seconds - evaluated > args.evaluate_seconds:
            record(losses)
            losses, evaluated = [], run.seconds
        if run.progress() >= 1 or run.seconds - saved > args.checkpoint_seconds:
            save()
            saved = run.seconds
    final = run.refit(run.average, 3, args.refit_crops)
    run.average = final
    logger.info("final %s", run.held_out_loss())
    save_student(run, final, result)


if __name__ == "__main__":
    main()
