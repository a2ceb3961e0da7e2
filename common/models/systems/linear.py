"""Linear heads on pooled frozen features: the model for strong privacy.

response logit = b + sum_f w_f x_f; hazard logits = c_k + sum_f v_f x_f with one score shared by
all intervals (proportional), or one score per interval. x_f is the pooled feature set f followed
by a presence flag, all zero where the patient lacks it.
"""

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from common.cohort.batch import Outputs, PatientBatch
from common.errors import ConfigError
from common.models.base.base import FusedModel, ModelOptions
from common.models.base.baseline import hazard_biases, response_bias
from common.models.parts.row_linear import RowLinear
from common.study.study import FeatureSpec, Study


class LinearOptions(ModelOptions):
    """Options of `linear` and `clinical_linear`."""

    per_interval: bool = Field(
        default=False, description="own weights per interval instead of one proportional score"
    )
    presence_flags: bool = Field(default=True, description="a flag input for every feature set")
    pooled_norm: float | None = Field(
        default=None, gt=0, description="public bound on the norm of a pooled feature set"
    )
    gain: dict[str, float] = Field(
        default_factory=dict, description="public factor on a feature set, 1 where not given"
    )
    pathway_sizes: dict[str, list[int]] = Field(
        default_factory=dict,
        description="genes in every row of a row_mean feature set: rows are then averaged over "
        "their own genes instead of the padded width",
    )


class LinearHeads(FusedModel):
    """One linear map per feature set, summed; biases start at the published baseline."""

    options = LinearOptions
    uniform_shape = True

    def __init__(self, study: Study, options: LinearOptions) -> None:
        super().__init__(study, options)
        _check_names(options, self.features)
        self._options = options
        n_scores = self.n_intervals if options.per_interval else min(self.n_intervals, 1)
        self._n_outputs = int(self.has_response) + n_scores
        flag = int(options.presence_flags)
        self.add_parts(lambda spec: RowLinear(spec.pooled_dim + flag, self._n_outputs))
        self.heads = nn.ParameterDict()
        if self.has_response:
            self.heads["response_bias"] = nn.Parameter(response_bias(study))
        if self.n_intervals:
            self.heads["hazard_bias"] = nn.Parameter(hazard_biases(study))

    def prepare(self, batch: PatientBatch) -> PatientBatch:
        """Return the batch with one token per feature set: the pooled vector and its flag."""
        tokens, mask, present = {}, {}, {}
        for name, spec in self.features.items():
            real, real_mask = batch.real_tokens(name)
            row = pool_tokens(real, real_mask, spec)
            if name in self._options.pathway_sizes:
                sizes = torch.tensor(self._options.pathway_sizes[name]).to(row)
                row = row * (spec.dim / sizes)
            if self._options.pooled_norm is not None:
                row = bound_norm(row, self._options.pooled_norm)
            row = row * self._options.gain.get(name, 1.0)
            here = batch.present[name]
            if self._options.presence_flags:
                row = torch.cat([row, here.unsqueeze(-1).to(row.dtype)], dim=-1)
            tokens[name] = row.unsqueeze(1)
            mask[name], present[name] = here.unsqueeze(-1), here
        return replace(
            batch,
            tokens=tokens,
            mask=mask,
            present=present,
        )

    def forward_prepared(self, batch: PatientBatch) -> Outputs:
        """Return the outputs from pooled vectors; `embedding` holds the scores (B, R)."""
        scores = batch.response.new_zeros((len(batch), self._n_outputs))
        for name in self.features:
            scores = scores + self.part(name)(batch.tokens[name].squeeze(1))
        response = scores[:, 0] if self.has_response else torch.zeros_like(batch.response)
        if self.has_response:
            response = response + self.heads["response_bias"]
        return Outputs(response, self._hazard_logits(scores), scores)

    def _hazard_logits(self, scores: Tensor) -> Tensor:
        if not self.n_intervals:
            return scores[:, :0]
        return scores[:, int(self.has_response) :].add(self.heads["hazard_bias"])


def _check_names(options: LinearOptions, features: dict[str, FeatureSpec]) -> None:
    unknown = (set(options.gain) | set(options.pathway_sizes)) - set(features)
    if unknown:
        raise ConfigError(
            f"gain or pathway_sizes name unknown feature sets: {', '.join(sorted(unknown))}",
            where="study.model.options",
            cure=f"use some of {', '.join(features)}",
        )
    for name, sizes in options.pathway_sizes.items():
        spec = features[name]
        fits = spec.pool == "row_mean" and len(sizes) == spec.max_tokens
        if not fits or min(sizes) < 1 or max(sizes) > spec.dim:
            raise ConfigError(
                f"pathway_sizes of '{name}' do not fit its rows",
                where=f"study.model.options.pathway_sizes.{name}",
                why=f"it needs {spec.max_tokens} numbers from 1 to {spec.dim}, pool: row_mean",
                cure="count the genes of every pathway in the study's gene sets",
            )


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
