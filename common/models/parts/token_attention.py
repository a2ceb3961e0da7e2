"""Attention between tokens, built from linear layers so that it has per-patient gradients."""

import math

import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.models.base.base import masked_softmax


class TokenAttention(nn.Module):
    """Multi-head attention: queries read keys, masked keys are never read.

    Args:
        width: Width of queries, keys and outputs.
        n_heads: Heads; must divide `width`.
        dropout: Dropout on the attention weights.
    """

    def __init__(self, width: int, n_heads: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self._n_heads = n_heads

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return (read (B, Q, width), weights (B, Q, T) averaged over heads).

        A patient without a real key reads the bias of `out` alone.

        Args:
            queries: (B, Q, width).
            keys: (B, T, width), also what values are made of.
            mask: (B, T) bool, true where a key is real.
        """
        query, key, value = self.query(queries), self.key(keys), self.value(keys)
        query, key, value = (self._split(tensor) for tensor in (query, key, value))
        scores = torch.einsum("bqhd,bthd->bhqt", query, key) / math.sqrt(query.shape[-1])
        weights = masked_softmax(scores, mask[:, None, None, :])
        read = torch.einsum("bhqt,bthd->bqhd", self.dropout(weights), value)
        return self.out(read.flatten(2)), weights.mean(1)

    def _split(self, tensor: Tensor) -> Tensor:
        return tensor.reshape(*tensor.shape[:2], self._n_heads, -1)


class FeedForward(nn.Module):
    """LayerNorm, Linear, GELU, dropout, Linear."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (..., width)."""
        hidden = nn.functional.gelu(self.first(self.norm(tokens)))
        second: Tensor = self.second(self.dropout(hidden))
        return second


def check_heads(width: int, heads: int) -> None:
    """Refuse a width that heads cannot share evenly.

    Raises:
        ConfigError: It is not a multiple of their number.
    """
    if width % heads:
        raise ConfigError(
            f"width {width} is not a multiple of heads {heads}",
            where="study.model.options",
            cure="choose a width that all heads share evenly",
        )
