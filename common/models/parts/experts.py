"""Multi-gate mixture of experts with dense, soft gates (Ma et al., KDD 2018).

Every patient passes every expert: hard routing would make one patient's path depend on others
through capacity limits, and has no gradient to clip.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.study.study import Task


class MultiGateExperts(nn.Module):
    """E experts Linear-GELU-Linear-GELU, mixed by one softmax gate per task.

    Args:
        width: Width F of the input.
        tasks: One gate each.
        n_experts: E.
        hidden: Hidden width of an expert.
        out: Width of what an expert returns.
        expert_dropout: In training, chance that an expert is left out for a patient; the gate is
            renormalised. It takes the place of a load-balance loss, which couples patients.
    """

    def __init__(
        self,
        width: int,
        tasks: tuple[Task, ...],
        *,
        n_experts: int,
        hidden: int,
        out: int,
        expert_dropout: float,
    ) -> None:
        super().__init__()
        self.first = nn.Linear(width, n_experts * hidden)
        bound = 1 / math.sqrt(hidden)
        self.second = nn.Parameter(torch.empty(n_experts, hidden, out).uniform_(-bound, bound))
        self.second_bias = nn.Parameter(torch.zeros(n_experts, out))
        self.gates = nn.ModuleDict({task: nn.Linear(width, n_experts) for task in tasks})
        self._drop = expert_dropout

    def forward(self, fused: Tensor) -> dict[str, Tensor]:
        """Return the mixture of every task, (B, out), from fused vectors (B, F)."""
        hidden = functional.gelu(self.first(fused)).reshape(len(fused), len(self.second), -1)
        experts = torch.einsum("beh,eho->beo", hidden, self.second) + self.second_bias
        experts = functional.gelu(experts)
        draws = self._kept(fused)
        mixed = {}
        for task, gate in self.gates.items():
            weights = torch.softmax(gate(fused), dim=-1) * draws
            weights = weights / weights.sum(-1, keepdim=True)
            mixed[task] = torch.einsum("be,beo->bo", weights, experts)
        return mixed

    def _kept(self, fused: Tensor) -> Tensor:
        if not self.training or self._drop == 0:
            return fused.new_ones(len(self.second))
        draws = torch.rand(len(fused), len(self.second), device=fused.device)
        mask = draws >= self._drop
        return (mask | ~mask.any(-1, keepdim=True)).to(fused.dtype)
