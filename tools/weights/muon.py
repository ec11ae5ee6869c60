# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The optimizer Muon for matrices with few rows."""

import torch
from torch import Tensor


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
