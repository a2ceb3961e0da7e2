"""Pool a bag of tokens to one vector, without any trained parameter."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from common.study.study import FeatureSpec


def pool_tokens(tokens: Tensor, mask: Tensor, spec: FeatureSpec) -> Tensor:
    """Return the pooled vector of each patient, (B, spec.pooled_dim).

    `mean`: mean over the real tokens. `flatten`: all tokens in order, missing ones zero.
    `row_mean`: the mean of every token, missing ones zero. A bag without a real token gives 0.

    Args:
        tokens: (B, T, D), zero where masked out.
        mask: (B, T) bool.
        spec: The feature set; T may differ from `max_tokens`.
    """
    if spec.pool == "mean":
        return tokens.sum(1).div(mask.sum(1, keepdim=True).clamp(min=1))
    missing = spec.max_tokens - tokens.shape[1]
    rows: Tensor = functional.pad(tokens, (0, 0, 0, missing))
    return rows.flatten(1) if spec.pool == "flatten" else rows.mean(-1)


def bound_norm(rows: Tensor, bound: float) -> Tensor:
    """Return rows (B, D) rescaled to norm <= bound; shorter rows are left as they are."""
    norm: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows.mul(bound / norm.clamp(min=bound))
