"""Linear heads on the embedding of a frozen fused trunk: deep fusion under strong privacy.

The trunk is any registered model, publicly pretrained (a weights file named by its digest) or
fixed at its public initial seed. It is not trained, so it spends no privacy; only the linear
heads on its embedding are. Private end-to-end training of deep fused models on some hundred
patients costs more than it gains; linear heads do not.
"""

import math
from dataclasses import replace
from typing import Self

import torch
from pydantic import Field, JsonValue
from torch import Tensor, nn
from torch.nn import functional

from common.cohort.batch import Outputs, PatientBatch
from common.errors import ConfigError
from common.models.base.base import FusedModel
from common.models.base.baseline import hazard_biases, response_bias
from common.models.base.build import create_model
from common.models.base.weights_file import NO_CLAIM, PretrainedOptions, note_origin
from common.models.parts.row_linear import RowLinear
from common.study.catalogue import MODELS
from common.study.study import Study


class FrozenTrunkOptions(PretrainedOptions):
    """Options of `frozen_trunk`."""

    trunk: str = Field(default="moemil", description="name of another model")
    trunk_options: dict[str, JsonValue] = Field(default_factory=dict)
    embedding_norm: float = Field(default=3.0, gt=0, description="every embedding gets this norm")
    per_interval: bool = False


class FrozenTrunk(FusedModel):
    """RowLinear heads on a frozen trunk's embedding, standardised over its own coordinates."""

    options = FrozenTrunkOptions
    uniform_shape = True

    def __init__(self, study: Study, options: FrozenTrunkOptions) -> None:
        super().__init__(study, options)
        trunk = _trunk(study, options)
        options.load_into(trunk, skip=("heads.",))
        trunk.requires_grad_(requires_grad=False)
        for name, parameter in trunk.named_parameters():
            if name.startswith("heads."):
                note_origin(parameter, NO_CLAIM)  # only the embedding is read
        self.fusion = nn.ModuleDict({"trunk": trunk})
        self._norm = options.embedding_norm
        self.heads = _Heads(study, _embedding_width(trunk), per_interval=options.per_interval)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the heads; the trunk never draws random numbers."""
        super().train(mode)
        self.fusion.eval()
        return self

    def prepare(self, batch: PatientBatch) -> PatientBatch:
        """Return the batch with one token per patient, the trunk's embedding."""
        embedding = self.fusion["trunk"](batch).embedding
        width = embedding.shape[-1]
        embedding = functional.layer_norm(embedding, (width,)) * (self._norm / math.sqrt(width))
        here = torch.ones_like(batch.response, dtype=torch.bool)
        return replace(
            batch,
            tokens={"embedding": embedding.unsqueeze(1)},
            mask={"embedding": here.unsqueeze(1)},
            present={"embedding": here},
        )

    def forward_prepared(self, batch: PatientBatch) -> Outputs:
        """Return the outputs from embeddings."""
        embedding = batch.tokens["embedding"].squeeze(1)
        response, hazards = self.heads(embedding)
        return Outputs(response, hazards, embedding)

    def forward(self, batch: PatientBatch) -> Outputs:
        """Return the outputs with the trunk's attention."""
        trunk_outputs = self.fusion["trunk"](batch)
        outputs = self.forward_prepared(self.prepare(batch))
        return Outputs(
            outputs.response_logit,
            outputs.hazard_logits,
            outputs.embedding,
            trunk_outputs.attention,
        )


def _trunk(study: Study, options: FrozenTrunkOptions) -> FusedModel:
    trunk_options = dict(options.trunk_options)
    if options.modalities is not None:
        trunk_options["modalities"] = list(options.modalities)
    where = "study.model.options.trunk"
    if MODELS.get(options.trunk, where=where).inner:
        raise ConfigError(
            f"'{options.trunk}' cannot be a trunk",
            where=where,
            why="it has another model inside, and so would the study",
            cure="name the inner model as the trunk",
        )
    return create_model(study, options.trunk, trunk_options, where)[0]


class _Heads(nn.Module):
    """One RowLinear for all scores, and the biases of the public baseline."""

    def __init__(self, study: Study, width: int, *, per_interval: bool) -> None:
        super().__init__()
        self._has_response = int(study.endpoints.response is not None)
        n_scores = study.n_intervals if per_interval else min(study.n_intervals, 1)
        self.scores = RowLinear(width, self._has_response + n_scores)
        biases = [response_bias(study)[: self._has_response], hazard_biases(study)]
        self.bias = nn.Parameter(torch.cat(biases))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        scores, first = self.scores(rows), self._has_response
        response = scores[:, 0] + self.bias[0] if first else rows.new_zeros(len(rows))
        return response, scores[:, first:] + self.bias[first:]


def _embedding_width(trunk: FusedModel) -> int:
    """Return the width E of the embedding, by asking about one patient who has nothing."""
    nobody = torch.zeros(1)
    tokens = {name: torch.zeros(1, 1, spec.dim) for name, spec in trunk.features.items()}
    no = torch.zeros(1, dtype=torch.bool)
    batch = PatientBatch(
        tokens=tokens,
        mask={name: no.unsqueeze(1) for name in tokens},
        present=dict.fromkeys(tokens, no),
        response=nobody,
        time_months=nobody,
        event=nobody,
        observed={"response": no, "survival": no},
    )
    with torch.no_grad():
        return int(trunk.eval()(batch).embedding.shape[1])
