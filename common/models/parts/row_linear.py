"""Linear layer whose output for a patient is the same, bit by bit, in any batch."""

import torch
from torch import Tensor, nn


class RowLinear(nn.Module):
    """x W^T without bias, as products and row sums; W starts at 0.

    A matrix product may add up a row in another order when the batch grows. Here it may not, so
    that many patients can be computed at once and one more changes no other's gradient at all.
    Meant for few outputs: the products take (B, n_out, n_in) numbers.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_out, n_in))

    def forward(self, rows: Tensor) -> Tensor:
        """Return (B, n_out) from rows (B, n_in)."""
        return (rows.unsqueeze(1) * self.weight).sum(-1)
