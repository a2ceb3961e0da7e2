"""Mean over tokens, one hidden layer per feature set, sum, heads."""

import torch
from pydantic import Field
from torch import nn

from common.cohort.batch import Outputs, PatientBatch
from common.models.base.base import FusedModel, ModelOptions
from common.models.parts.towers import Towers
from common.study.study import Study


class PooledOptions(ModelOptions):
    """Options of `pooled`."""

    width: int = Field(default=8, gt=0)


class Pooled(FusedModel):
    """See the module's first line."""

    options = PooledOptions

    def __init__(self, study: Study, options: PooledOptions) -> None:
        super().__init__(study, options)
        for modality in study.modalities:
            sets = {n: s for n, s in self.features.items() if s.modality == modality}
            layers = {name: nn.Linear(spec.dim, options.width) for name, spec in sets.items()}
            self.add_module(modality, nn.ModuleDict(layers))
        self.heads = Towers(study, options.width, hidden=0)

    def forward_prepared(self, batch: PatientBatch) -> Outputs:
        """Return the outputs."""
        embedding = torch.stack([self._vector(name, batch) for name in self.features]).sum(0)
        return Outputs(*self.heads(embedding), embedding)

    def _vector(self, name: str, batch: PatientBatch) -> torch.Tensor:
        tokens, mask = batch.real_tokens(name)
        mean = tokens.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        layer = self.get_submodule(f"{self.features[name].modality}.{name}")
        return torch.tanh(layer(mean)) * batch.present[name].unsqueeze(-1)


class BatchNormed(Pooled):
    """The same with a layer that mixes patients; no private study may train it."""

    def __init__(self, study: Study, options: PooledOptions) -> None:
        super().__init__(study, options)
        self.fusion = nn.BatchNorm1d(options.width)
