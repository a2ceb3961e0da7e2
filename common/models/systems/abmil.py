"""ABMIL: gated attention over the tiles of a slide (Ilse, Tomczak and Welling, ICML 2018).

h = ReLU(W x); attention pooling; Linear and ReLU; heads. Several bags are pooled one by one and
joined. Pathology only by default.
"""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from common.cohort.batch import Outputs, PatientBatch
from common.models.base.base import FusedModel, ModelOptions
from common.models.parts.attention_pooling import GatedAttention
from common.models.parts.towers import Towers
from common.models.systems.moemil import AbsentVectors
from common.study.modalities import MODALITIES
from common.study.study import Study


class AbmilOptions(ModelOptions):
    """Options of `abmil`."""

    width: int = Field(default=256, gt=0)
    attention_hidden: int = Field(default=256, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class Abmil(FusedModel):
    """See the module's first lines."""

    options = AbmilOptions

    def __init__(self, study: Study, options: AbmilOptions) -> None:
        super().__init__(study, options)
        self.add_parts(lambda spec: _Pool(spec.dim, options), sorted(MODALITIES))
        n_sets = len(self.features)
        self.fusion = nn.ModuleDict(
            {
                "absent": AbsentVectors(list(self.features), options.width),
                "linear": nn.Linear(n_sets * (options.width + 1), options.width),
                "dropout": nn.Dropout(options.dropout),
            }
        )
        self.heads = Towers(study, options.width, hidden=0)

    def forward_prepared(self, batch: PatientBatch) -> Outputs:
        """Return the outputs; `embedding` is the pooled vector after Linear and ReLU."""
        vectors, attention = {}, {}
        for name in self.features:
            vectors[name], attention[name] = self.part(name)(*batch.real_tokens(name))
        fused_vector = self.fusion["linear"](self.fusion["absent"](vectors, batch.present))
        embedding = self.fusion["dropout"](functional.relu(fused_vector))
        response, hazards = self.heads(embedding)
        return Outputs(response, hazards, embedding, attention)


class _Pool(nn.Module):
    def __init__(self, dim: int, options: AbmilOptions) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, options.width)
        self.attention = GatedAttention(options.width, options.attention_hidden, options.dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        pooled: tuple[Tensor, Tensor] = self.attention(torch.relu(self.linear(tokens)), mask)
        return pooled
