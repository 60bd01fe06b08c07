"""Muon for the matrices inside blocks: momentum whose singular values are made equal before each step.
Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). Matrices of one shape step together.
"""

from __future__ import annotations

import collections

import torch
from torch import Tensor, nn


def orthogonalised(g: Tensor) -> Tensor:
    """(n, rows, columns) -> its nearest (semi-)orthogonal matrices, roughly: five quintic Newton-Schulz steps in bf16."""
    tall = g.shape[1] > g.shape[2]
    x = (g.mT if tall else g).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon:
    def __init__(self, parameters: list[nn.Parameter], momentum: float = 0.95, decay: float = 0.02) -> None:
        groups: dict[torch.Size, list[nn.Parameter]] = collections.defaultdict(list)
        for p in parameters:
            groups[p.shape].append(p)
        self.groups = list(groups.values())
        self.buffers = [torch.zeros(len(g), *g[0].shape, device=g[0].device) for g in self.groups]
        self.momentum, self.decay = momentum, decay

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for group, buffer in zip(self.groups, self.buffers):
            gradient = torch.stack([p.grad for p in group])
            buffer.lerp_(gradient, 1 - self.momentum)
            update = orthogonalised(torch.lerp(gradient, buffer, self.momentum))  # Nesterov's
            update *= -rate * max(1.0, buffer.shape[1] / buffer.shape[2]) ** 0.5
            torch._foreach_mul_(group, 1 - rate * self.decay)
            torch._foreach_add_(group, list(update.unbind()))


def split(models: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Muon's parameters, the matrices of the transformer's blocks, and those that Adam keeps."""
    hidden, rest = [], []
    for name, p in models.named_parameters():
        inside = ("double_blocks." in name or "single_blocks." in name) and "mod" not in name
        (hidden if inside and p.ndim == 2 else rest).append(p)
    return hidden, rest
