"""Encode one feature set as one vector; its shape chooses the encoder.

A single token is a vector (radiomics, a clinical table); rows in a fixed order whose values are
pooled by row are pathways; anything else is a bag (tiles, slices, sentences).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from common.models.base.base import ModelOptions
from common.models.parts.attention_pooling import GatedAttention
from common.study.study import FeatureSpec

PathwayWeights = Literal["per_token", "shared"]


class EncoderOptions(ModelOptions):
    """Options of a model with one encoder per feature set."""

    width: int = Field(default=256, gt=0, description="width of a feature set's vector")
    bag_hidden: int = Field(default=512, gt=0, description="width of a bag's hidden tokens")
    attention_hidden: int = Field(default=256, gt=0)
    pathway_hidden: int = Field(default=64, gt=0)
    pathway_weights: PathwayWeights = "per_token"
    dropout: float = Field(default=0.25, ge=0, lt=1)


@dataclass
class Encoded:
    """A feature set of B patients.

    Attributes:
        vector: (B, width).
        tokens: (B, T, H) hidden tokens before pooling, None for a vector.
        attention: (B, T) pooling weights, None for a vector.
    """

    vector: Tensor
    tokens: Tensor | None = None
    attention: Tensor | None = None


class Encoder(nn.Module, ABC):
    """Tokens (B, T, D) and their mask (B, T) to one vector (B, width)."""

    @abstractmethod
    def forward(self, tokens: Tensor, mask: Tensor) -> Encoded:
        """Return the encoded feature set; finite for a bag without a real token."""


class VectorEncoder(Encoder):
    """Linear, LayerNorm, GELU, dropout on a single token."""

    def __init__(self, spec: FeatureSpec, sizes: EncoderOptions) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.dim, sizes.width)
        self.norm = nn.LayerNorm(sizes.width)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> Encoded:
        """Return the encoded vector."""
        return Encoded(self.dropout(functional.gelu(self.norm(self.linear(tokens[:, 0])))))


class BagEncoder(Encoder):
    """Linear, ReLU, gated attention, Linear, LayerNorm."""

    def __init__(self, spec: FeatureSpec, sizes: EncoderOptions) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.dim, sizes.bag_hidden)
        self.attention = GatedAttention(sizes.bag_hidden, sizes.attention_hidden, sizes.dropout)
        self.out = nn.Linear(sizes.bag_hidden, sizes.width)
        self.norm = nn.LayerNorm(sizes.width)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> Encoded:
        """Return the encoded bag with its hidden tokens and attention."""
        hidden = self.dropout(functional.relu(self.linear(tokens)))
        pooled, weights = self.attention(hidden, mask)
        return Encoded(self.norm(self.out(pooled)), hidden, weights)


class PathwayTokens(nn.Module):
    """Pathway p: its genes (Gmax, zero-padded) to a token by a self-normalising layer.

    ELU and alpha dropout as in the gene networks of MCAT and SurvPath. Weights of its own for
    every pathway (`per_token`) or one matrix for all (`shared`).
    """

    def __init__(self, spec: FeatureSpec, hidden: int, weights: PathwayWeights, dropout: float):
        super().__init__()
        self.n_rows = spec.max_tokens
        copies = self.n_rows if weights == "per_token" else 1
        bound = 1 / math.sqrt(spec.dim)
        self.weight = nn.Parameter(torch.empty(copies, spec.dim, hidden).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(self.n_rows, hidden))
        self.dropout = nn.AlphaDropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return (tokens (B, P, hidden), mask (B, P)) for P rows, whatever T is."""
        missing = self.n_rows - tokens.shape[1]
        genes = functional.pad(tokens, (0, 0, 0, missing))
        weight = self.weight.expand(self.n_rows, -1, -1)
        hidden = torch.einsum("bpg,pgh->bph", genes, weight) + self.bias
        return self.dropout(functional.elu(hidden)), functional.pad(mask, (0, missing))


class PathwayEncoder(Encoder):
    """Pathway tokens, gated attention, Linear, LayerNorm."""

    def __init__(self, spec: FeatureSpec, sizes: EncoderOptions) -> None:
        super().__init__()
        hidden = sizes.pathway_hidden
        self.pathways = PathwayTokens(spec, hidden, sizes.pathway_weights, sizes.dropout)
        self.attention = GatedAttention(hidden, hidden, sizes.dropout)
        self.out = nn.Linear(hidden, sizes.width)
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, tokens: Tensor, mask: Tensor) -> Encoded:
        """Return the encoded pathways; attention has one weight for each of the T rows given."""
        hidden, rows = self.pathways(tokens, mask)
        pooled, weights = self.attention(hidden, rows)
        weights = functional.pad(weights, (0, tokens.shape[1] - weights.shape[1]))
        return Encoded(self.norm(self.out(pooled)), hidden, weights)


def is_pathway_set(spec: FeatureSpec) -> bool:
    """Return whether rows are pathways: tokens in fixed order, pooled row by row."""
    return spec.pool == "row_mean" and spec.max_tokens > 1


def make_encoder(spec: FeatureSpec, sizes: EncoderOptions) -> Encoder:
    """Return the encoder that fits the shape of a feature set."""
    if spec.max_tokens == 1:
        return VectorEncoder(spec, sizes)
    return PathwayEncoder(spec, sizes) if is_pathway_set(spec) else BagEncoder(spec, sizes)
