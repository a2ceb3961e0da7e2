"""Map feature sets to tokens of one width, for models with attention between tokens."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from common.cohort.batch import PatientBatch
from common.models.base.base import ModelOptions
from common.models.parts.encoders import PathwayTokens, PathwayWeights, is_pathway_set
from common.study.modalities import MODALITY_ENTRIES
from common.study.study import FeatureSpec


class Tokenizer(nn.Module, ABC):
    """Tokens (B, T, D) and mask (B, T) to tokens (B, T', width) and mask (B, T')."""

    @abstractmethod
    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens and which of them are real."""


class LinearTokens(Tokenizer):
    """One linear map on every token."""

    def __init__(self, spec: FeatureSpec, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.dim, width)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, T, width) and the same mask."""
        return self.linear(tokens), mask


class PathwayRowTokens(Tokenizer):
    """One token a pathway, then a linear map to the width."""

    def __init__(self, spec: FeatureSpec, options: "TokenOptions") -> None:
        super().__init__()
        hidden = options.pathway_hidden
        self.pathways = PathwayTokens(spec, hidden, options.pathway_weights, options.dropout)
        self.linear = nn.Linear(hidden, options.width)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, P, width) and the mask of rows, (B, P)."""
        hidden, rows = self.pathways(tokens, mask)
        return self.linear(hidden), rows


class ColumnTokens(Tokenizer):
    """A table to one token per column, x_j w_j + b_j (Gorishniy et al., NeurIPS 2021)."""

    def __init__(self, spec: FeatureSpec, width: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(spec.dim, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(spec.dim, width).uniform_(-bound, bound))

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, D, width) of the first token's columns, all real where it is."""
        columns = tokens[:, 0, :, None] * self.weight + self.bias
        return columns, mask[:, :1].expand(-1, columns.shape[1])


class TokenOptions(ModelOptions):
    """Options of a model whose tokens attend to each other."""

    width: int = Field(default=256, gt=0, description="width of a token")
    dropout: float = Field(default=0.1, ge=0, lt=1)
    pathway_hidden: int = Field(default=64, gt=0, description="width of a pathway's own layer")
    pathway_weights: PathwayWeights = "per_token"


def make_tokenizer(spec: FeatureSpec, options: TokenOptions) -> Tokenizer:
    """Return the tokenizer that fits a feature set; a table becomes one token per column."""
    width = options.width
    if is_pathway_set(spec):
        return PathwayRowTokens(spec, options)
    if spec.max_tokens == 1 and MODALITY_ENTRIES.get(spec.modality).tabular:
        return ColumnTokens(spec, width)
    return LinearTokens(spec, width)


@dataclass
class Tokens:
    """Tokens of several feature sets, joined.

    Attributes:
        tokens: (B, T, width), zero where nothing is; the first is never real.
        mask: (B, T) true where real.
        columns: Per feature set, its columns among the T.
    """

    tokens: Tensor
    mask: Tensor
    columns: dict[str, slice]

    def attention(self, reading: Tensor, batch: PatientBatch) -> dict[str, Tensor]:
        """Return per feature set how much of its tokens is read, (B, its T), summing to 1.

        Args:
            reading: (B, T) non-negative weights on the joined tokens.
            batch: The batch that the tokens were made of.
        """
        shares = {}
        for name, columns in self.columns.items():
            mask = batch.mask[name] & batch.present[name].unsqueeze(1)
            own = pad_to(reading[:, columns], mask.shape[1])
            shares[name] = share_of_attention(own, mask)
        return shares


def tokens_of(tokenizers: dict[str, nn.Module], batch: PatientBatch, width: int) -> Tokens:
    """Return the tokens of several feature sets, joined in order."""
    nothing = batch.response.new_zeros((len(batch), 1, width))
    tokens, masks = [nothing], [torch.zeros_like(nothing[..., 0], dtype=torch.bool)]
    columns, start = {}, 1
    for name, tokenizer in tokenizers.items():
        own, mask = tokenizer(*batch.real_tokens(name))
        tokens.append(torch.where(mask.unsqueeze(-1), own, 0.0))
        masks.append(mask)
        columns[name] = slice(start, start + mask.shape[1])
        start += mask.shape[1]
    return Tokens(torch.cat(tokens, dim=1), torch.cat(masks, dim=1), columns)


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over real tokens, (B, width); 0 where there is none."""
    weights = mask.to(tokens.dtype).unsqueeze(-1)
    total = (tokens * weights).sum(1)
    return total / weights.sum(1).clamp(min=1.0)


def share_of_attention(weights: Tensor, mask: Tensor) -> Tensor:
    """Return non-negative weights (B, T) rescaled to sum 1 over real tokens.

    Uniform over the real tokens where all weights are 0; 0 where no token is real.
    """
    real = mask.to(weights.dtype)
    real_weights = weights * real
    total = real_weights.sum(-1, keepdim=True)
    uniform = real / real.sum(-1, keepdim=True).clamp(min=1.0)
    return torch.where(total > 0, real_weights / total.clamp(min=1e-30), uniform)


def pad_to(weights: Tensor, length: int) -> Tensor:
    """Return (B, T) weights cut or zero-padded to (B, length)."""
    padded: Tensor = functional.pad(weights, (0, length - weights.shape[-1]))
    return padded
