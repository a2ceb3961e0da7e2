"""Gated attention over a bag of tokens (Ilse, Tomczak and Welling, ICML 2018)."""

import torch
from torch import Tensor, nn

from common.models.base.base import masked_softmax


class GatedAttention(nn.Module):
    """a_t = softmax_t w^T (tanh(V h_t) * sigmoid(U h_t)) over the real tokens."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.value = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden)
        self.score = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return (pooled (B, D), weights (B, T)); both zero for a bag without a real token.

        Args:
            tokens: (B, T, D).
            mask: (B, T) bool.
        """
        gated = torch.tanh(self.value(tokens)) * torch.sigmoid(self.gate(tokens))
        weights = masked_softmax(self.score(self.dropout(gated)).squeeze(-1), mask)
        return torch.einsum("bt,btd->bd", weights, tokens), weights
