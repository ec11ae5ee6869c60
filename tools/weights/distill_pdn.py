# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Distil a timm backbone into anomalib's SmallPatchDescriptionNetwork (EfficientAD's PDN-S).

    python tools/weights/distill_pdn.py --images ../shared/data/natural --out runs/pdn --minutes 120

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
import time
from collections.abc import Callable
from pathlib import Path

import torch
import winograd
from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork, imagenet_norm_batch
from crops import Crops
from muon import Muon
from pdn_teacher import LAYERS, TEACHER, TeacherOnPdnGrid, load_teacher
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

logger = logging.getLogger("distill_pdn")


def parse_args() -> argparse.Namespace:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--images", type=Path, required=True, help="folder of photographs and textures, searched recursively"
    )
    p.add_argument(
        "--out", type=Path, required=True, help="run folder: checkpoint.pt, log.jsonl, pdn_small.safetensors"
    )
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
    p.add_argument("--refit-crops", type=int, default=1024, help="crops for the final ridge of the last layer")
    p.add_argument(
        "--first-refit-crops", type=int, default=192, help="the same before the first step; 0: start at zero"
    )
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    return p.parse_args()


def keep_freed_memory() -> None:
    """Let glibc reuse freed blocks.

    It returns each large tensor to the system, and fresh pages cost a third of a step on a CPU.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_mmap_max = -1, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


class Distillation:
    """Teacher, student, optimizer and their schedule; one object so that a checkpoint is one dictionary."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.bf16 = self.device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001
        # Winograd needs half of the processor time of the library's float32 convolutions, backward pass included.
        self.conv2d = winograd.conv2d if self.device.type == "cpu" and not self.bf16 else F.conv2d
        self.crops = Crops(args.images, args.crop, args.held_out)
        teacher = TeacherOnPdnGrid(load_teacher(args.teacher, args.teacher_weights), args.layers)
        self.teacher = teacher.to(self.device, memory_format=torch.channels_last)
        self.held_out = [x.to(self.device) for x in self.crops.held_out_batches(args.batch)]
        torch.manual_seed(args.seed)
        student = SmallPatchDescriptionNetwork(384).to(self.device).requires_grad_(requires_grad=False)
        self.shapes = {name: p.shape for name, p in student.named_parameters()}
        # Matrices (out, in * k * k) as Muon wants them; the convolutions see them reshaped.
        self.params = {name: p.flatten(1) if p.ndim > 1 else p for name, p in student.named_parameters()}
        with torch.no_grad():
            features = self.teacher(self.held_out[0][:1])
        self.channels = [features[layer].shape[1] for layer in args.layers]
        self.held_out_targets: list[Tensor] | None = None
        self.step, self.seconds, self.lr = 0, 0.0, 0.0

    # ---------------------------------------------------------------- forward passes
    def autocast(self) -> torch.autocast:
        """bfloat16 for both networks where the hardware has it: emulated it is 4-7 times slower than float32.

        The loss, the weights and the statistics stay in float32.
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

    def hidden(self, w: dict[str, Tensor], x: Tensor) -> Tensor:
        """Student features before the last convolution (B, 256, h + 3, w + 3)."""
        x = imagenet_norm_batch(x).contiguous(memory_format=torch.channels_last)
        x = F.avg_pool2d(F.relu(F.conv2d(x, w["conv1.weight"], w["conv1.bias"])), 2)
        x = F.avg_pool2d(F.relu(self.conv2d(x, w["conv2.weight"], w["conv2.bias"])), 2)
        return F.relu(self.conv2d(x, w["conv3.weight"], w["conv3.bias"]))

    def predict(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
        """Student output (B, 384, h, w), equal to SmallPatchDescriptionNetwork's; float32."""
        w = self.weights(params)
        with self.autocast():
            return self.conv2d(self.hidden(w, x), w["conv4.weight"], w["conv4.bias"]).float()

    def loss(self, params: dict[str, Tensor], x: Tensor, target: Tensor) -> Tensor:
        """Mean squared error per channel (C,), in units of the target's variance."""
        return (self.predict(params, x)[:, : target.shape[1]] - target).square().mean(dim=(0, 2, 3))

    @torch.no_grad()
    def held_out_loss(self, params: dict[str, Tensor]) -> dict[str, float]:
        """Held-out loss: all channels and each layer."""
        if self.held_out_targets is None:
            self.held_out_targets = [self.targets(x) for x in self.held_out]
        pairs = zip(self.held_out, self.held_out_targets, strict=True)
        per_channel = sum(self.loss(params, x, target) * len(x) for x, target in pairs) / self.args.held_out
        by_layer = zip(self.args.layers, per_channel.split(self.channels), strict=True)
        return {"held_out": per_channel.mean().item(), **{layer: v.mean().item() for layer, v in by_layer}}

    # ---------------------------------------------------------------- start
    @torch.no_grad()
    def initialise(self) -> None:
        """Channel statistics of the teacher, then data-dependent initialisation of the student layer by layer.

        Every hidden channel starts with mean 0 and variance 1 (PyTorch's default lets the signal shrink), the last
        layer at zero.
        """
        args = self.args
        batches = [
            self.crops.batch(args.batch, args.seed, 1, k) for k in range(-(-args.statistics_crops // args.batch))
        ]
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

    # ---------------------------------------------------------------- ridge regression of the last layer
    @torch.no_grad()
    def refit(self, params: dict[str, Tensor], stream: int, crops: int) -> dict[str, Tensor]:
        """Solve the last convolution in closed form, by ridge regression towards its present weights on fresh crops.

        The penalty with the lowest held-out loss is kept, or the present weights if none is better.
        """
        size = self.shapes["conv4.weight"][1:].numel()
        gram = torch.zeros(size + 1, size + 1, device=self.device)
        cross = torch.zeros(size + 1, sum(self.channels), device=self.device)
        w = self.weights(params)
        rows_seen = 0
        rng = torch.Generator().manual_seed(self.args.seed)

        last = torch.cat([params["conv4.weight"], params["conv4.bias"][:, None]], dim=1)[: cross.shape[1]].T
        for k in range(-(-crops // self.args.batch)):
            x = self.crops.batch(self.args.batch, self.args.seed, stream, k).to(self.device)
            with self.autocast():
                h = self.hidden(w, x)
            patches, target = F.unfold(h.float(), 4), self.targets(x).flatten(2)
            # neighbouring cells say nearly the same: a random fifth of them
            keep = torch.randperm(target.shape[2], generator=rng)[: max(1, target.shape[2] // 5)].to(self.device)
            rows = patches[:, :, keep].permute(0, 2, 1).reshape(-1, size)
            rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
            gram.addmm_(rows.T, rows)
            cross.addmm_(rows.T, target[:, :, keep].permute(0, 2, 1).reshape(len(rows), -1) - rows @ last)
            rows_seen += len(rows)
        best, best_loss = params, self.held_out_loss(params)["held_out"]
        report = [f"none: {best_loss:.4f}"]
        scale = gram.diagonal()[:-1].mean()
        for penalty in (1e-3, 1e-2, 1e-1, 1.0, 10.0):
            ridge = torch.full((size + 1,), float(penalty * scale), device=self.device)
            ridge[-1] = 1e-6 * scale
            delta = torch.cholesky_solve(cross, torch.linalg.cholesky(gram + ridge.diag()))
            trial = dict(params)
            trial["conv4.weight"] = params["conv4.weight"].detach().clone()
            trial["conv4.bias"] = params["conv4.bias"].detach().clone()
            trial["conv4.weight"][: delta.shape[1]] += delta[:-1].T
            trial["conv4.bias"][: delta.shape[1]] += delta[-1]
            loss = self.held_out_loss(trial)["held_out"]
            report.append(f"{penalty:g}: {loss:.4f}")
            if loss < best_loss:
                best, best_loss = trial, loss
        logger.info("ridge on %d rows, held-out loss by penalty %s; kept %.4f", rows_seen, ", ".join(report), best_loss)
        return best

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
        loss = self.loss(self.params, x, self.targets(x)).mean()
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


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside ``path`` and rename, so that a kill leaves the old file or the new one."""
    part = path.with_name(path.name + ".part")
    write(part)
    part.replace(path)


def save_student(run: Distillation, params: dict[str, Tensor], path: Path) -> None:
    """Save as float16 safetensors under the names of anomalib's SmallPatchDescriptionNetwork."""
    tensors = {n: w.detach().to("cpu", torch.float16).contiguous() for n, w in run.weights(params).items()}
    write_atomically(path, lambda part: save_file(tensors, part, metadata={"step": str(run.step)}))
    logger.info("%s sha256 %s", path, hashlib.sha256(path.read_bytes()).hexdigest())


def main() -> None:
    """Train to the end of the schedule, refit the last layer, save."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
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
        if args.first_refit_crops:
            run.params = run.refit(run.params, 2, args.first_refit_crops)
        run.setup()
        run.average = {n: p.detach().clone() for n, p in run.params.items()}
        log.write_text("")

    def save() -> None:
        write_atomically(checkpoint, lambda part: torch.save({**run.state_dict(), "settings": settings}, part))

    def record(losses: list[float]) -> None:
        row = {
            "step": run.step,
            "seconds": round(run.seconds, 1),
            "lr": run.lr,
            "train": sum(losses) / max(1, len(losses)),
        }
        row |= run.held_out_loss(run.average)
        with log.open("a") as file:
            file.write(json.dumps({k: round(v, 6) for k, v in row.items()}) + "\n")
        logger.info("%s", row)

    losses: list[float] = []
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
    with (args.out / "final.json").open("w") as file:
        json.dump({"step": run.step, "seconds": round(run.seconds, 1), **run.held_out_loss(final)}, file)
    save_student(run, final, result)


if __name__ == "__main__":
    keep_freed_memory()
    main()
