"""One small head per task; an untrained head predicts the published baseline."""

import torch
from torch import Tensor, nn

from common.models.base.baseline import hazard_biases, response_bias
from common.study.study import Study


class Towers(nn.Module):
    """Linear-ReLU-Linear per task; the last weights start at 0, the last biases at the baseline.

    Args:
        study: Endpoints.
        width: Width of the input.
        hidden: Hidden width; 0 leaves a single Linear.
    """

    def __init__(self, study: Study, width: int, hidden: int) -> None:
        super().__init__()
        biases = {"response": response_bias(study), "survival": hazard_biases(study)}
        for task in study.tasks:
            self.add_module(task, _tower(width, hidden, biases[task]))

    def forward(self, mixed: Tensor | dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return (response_logit (B,), hazard_logits (B, K)); zeros, K = 0 where no such task.

        Args:
            mixed: (B, width) for all tasks, or one for each.
        """
        towers = dict(self.named_children())
        inputs = dict.fromkeys(towers, mixed) if isinstance(mixed, Tensor) else mixed
        like = next(iter(inputs.values()))
        response, hazards = like.new_zeros(len(like)), like.new_zeros((len(like), 0))
        if "response" in towers:
            response = towers["response"](inputs["response"]).squeeze(-1)
        if "survival" in towers:
            hazards = towers["survival"](inputs["survival"])
        return response, hazards


def _tower(width: int, hidden: int, bias: Tensor) -> nn.Module:
    last = nn.Linear(hidden or width, len(bias))
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(bias)
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), last) if hidden else last
