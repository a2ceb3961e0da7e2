"""Low-rank updates of linear layers: W x + B A x / r * alpha (Hu et al., ICLR 2022).

A is frozen at its public seed and only B, which starts at 0, is trained: the mean of the sites'
B is then the mean of their changes, which the mean of A and B taken apart is not.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

ALPHA = 16.0


class LoraLinear(nn.Module):
    """A frozen linear layer with a trained change of rank r.

    Args:
        base: The layer; frozen here.
        rank: r.
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.base.weight.requires_grad = False
        if self.base.bias is not None:
            self.base.bias.requires_grad = False
        bound = 1 / math.sqrt(base.in_features)
        down = torch.empty(rank, base.in_features).uniform_(-bound, bound)
        self.down = nn.Parameter(down, requires_grad=False)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))
        self._scale = ALPHA / rank

    def forward(self, rows: Tensor) -> Tensor:
        """Return (..., out_features)."""
        change = nn.functional.linear(nn.functional.linear(rows, self.down), self.up)
        rows_out: Tensor = self.base(rows) + self._scale * change
        return rows_out


def add_lora(module: nn.Module, rank: int, names: tuple[str, ...]) -> int:
    """Give every linear layer of these names inside a module a low-rank change; return how many."""
    layers = [
        (parent, name)
        for parent in list(module.modules())
        for name, child in list(parent.named_children())
        if name in names and isinstance(child, nn.Linear)
    ]
    for parent, name in layers:
        linear = parent.get_submodule(name)
        if isinstance(linear, nn.Linear):
            setattr(parent, name, LoraLinear(linear, rank))
    return len(layers)
