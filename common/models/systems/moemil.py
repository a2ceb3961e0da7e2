"""MoEMIL: attention over slides and scans, genomics and clinical tokens, mixture of experts.

Every feature set becomes one vector (a learned absent vector where the patient lacks it); the
vectors and presence flags pass dense experts mixed by one gate per task, and one tower per task.
After the published multi-gate mixture of experts for response and survival in nasopharyngeal
carcinoma, with genomics and clinical inputs added.
"""

from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from common.cohort.batch import Outputs, PatientBatch
from common.models.base.base import FusedModel
from common.models.parts.encoders import (
    BagEncoder,
    Encoded,
    EncoderOptions,
    make_encoder,
)
from common.models.parts.experts import MultiGateExperts
from common.models.parts.towers import Towers
from common.study.study import Study

SMALL = {
    "width": 16,
    "bag_hidden": 32,
    "attention_hidden": 16,
    "pathway_hidden": 8,
    "pathway_weights": "shared",
    "experts": 3,
    "expert_hidden": 32,
    "expert_width": 16,
    "tower_hidden": 16,
    "dropout": 0.1,
}
"""Options under `size: small`, for some hundred patients."""


class MoemilOptions(EncoderOptions):
    """Options of `moemil`; the defaults are the published size."""

    size: Literal["full", "small"] = "full"
    experts: int = Field(default=8, gt=0)
    expert_hidden: int = Field(default=256, gt=0)
    expert_width: int = Field(default=128, gt=0)
    tower_hidden: int = Field(default=64, ge=0)
    expert_dropout: float = Field(default=0.1, ge=0, lt=1)
    instance_weight: float = Field(default=0.3, ge=0, description="weight of CLAM's patch loss")
    instance_patches: int = Field(default=8, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _fill_small(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("size") == "small":
            return SMALL | data
        return data


class Moemil(FusedModel):
    """See the module's first lines."""

    options = MoemilOptions

    def __init__(self, study: Study, options: MoemilOptions) -> None:
        super().__init__(study, options)
        self.add_parts(lambda spec: make_encoder(spec, options))
        fused_width = len(self.features) * (options.width + 1)
        self.fusion = nn.ModuleDict(
            {
                "absent": AbsentVectors(list(self.features), options.width),
                "experts": MultiGateExperts(
                    fused_width,
                    study.tasks,
                    n_experts=options.experts,
                    hidden=options.expert_hidden,
                    out=options.expert_width,
                    expert_dropout=options.expert_dropout,
                ),
            }
        )
        self.heads = Towers(study, options.expert_width, options.tower_hidden)
        self._add_instance_losses(options)

    def _add_instance_losses(self, options: MoemilOptions) -> None:
        self._instance_weight = options.instance_weight if self.has_response else 0.0
        self._instances: dict[str, str] = {}
        if self._instance_weight == 0:
            return
        for name, spec in self.features.items():
            encoder = self.part(name)
            if spec.modality == "pathology" and isinstance(encoder, BagEncoder):
                loss = InstanceLoss(options.bag_hidden, options.instance_patches)
                self._instances[name] = f"{spec.modality}.{name}.instances"
                encoder.add_module("instances", loss)

    def _encode(self, batch: PatientBatch) -> dict[str, Encoded]:
        return {name: self.part(name)(*batch.real_tokens(name)) for name in self.features}

    def _fuse(self, encoded: dict[str, Encoded], batch: PatientBatch) -> Outputs:
        vectors = {name: one.vector for name, one in encoded.items()}
        fused = self.fusion["absent"](vectors, batch.present)
        mixed = self.fusion["experts"](fused)
        response, hazards = self.heads(mixed)
        attention = {n: e.attention for n, e in encoded.items() if e.attention is not None}
        return Outputs(response, hazards, torch.cat(list(mixed.values()), dim=-1), attention)

    def forward_prepared(self, batch: PatientBatch) -> Outputs:
        """Return the outputs; `embedding` holds the expert mixtures of all tasks."""
        return self._fuse(self._encode(batch), batch)

    def training_outputs(self, batch: PatientBatch) -> tuple[Outputs, Tensor | None]:
        """Return the outputs and CLAM's patch loss of the slides, where response is observed."""
        encoded = self._encode(batch)
        outputs = self._fuse(encoded, batch)
        total = None
        for name, path in self._instances.items():
            one, mask = encoded[name], batch.real_tokens(name)[1]
            response = torch.where(batch.observed["response"], batch.response, 0.0)
            loss = self.get_submodule(path)(one.tokens, one.attention, mask, response)
            loss = self._instance_weight * torch.where(batch.observed["response"], loss, 0.0)
            total = loss if total is None else total + loss
        return outputs, total


class AbsentVectors(nn.Module):
    """Joins the vectors of all feature sets; where one is absent, a learned vector stands in."""

    def __init__(self, names: list[str], width: int) -> None:
        super().__init__()
        self.vectors = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name in names})

    def forward(self, vectors: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        """Return (B, F * width + F): vectors in name order, then presence flags."""
        names = list(self.vectors)
        rows = [
            torch.where(present[name].unsqueeze(-1), vectors[name], self.vectors[name])
            for name in names
        ]
        flags = torch.stack([present[name] for name in names], dim=-1).to(rows[0].dtype)
        return torch.cat([*rows, flags], dim=-1)


class InstanceLoss(nn.Module):
    """One two-way patch classifier a response class, CLAM's instance loss (Lu et al., 2021).

    For the patient's class the k patches with most attention are positives and the k with least
    are negatives, so attention must select patches that look like the patient's class.

    Args:
        width: Width H of a hidden token.
        n_patches: k.
    """

    def __init__(self, width: int, n_patches: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, 4)
        self._k = n_patches

    def forward(self, hidden: Tensor, weights: Tensor, mask: Tensor, response: Tensor) -> Tensor:
        """Return the mean cross-entropy of 2k patches, (B,); 0 for bags under 2k real tokens.

        Args:
            hidden: (B, T, H) tokens.
            weights: (B, T) attention.
            mask: (B, T) bool.
            response: (B,) 0 or 1, anything where unobserved.
        """
        if hidden.shape[1] < 2 * self._k:
            return response.new_zeros(len(response))
        high = torch.where(mask, weights, -1.0).detach().topk(self._k, dim=-1).indices
        low = torch.where(mask, -weights, -2.0).detach().topk(self._k, dim=-1).indices
        logits = self.classifier(hidden).reshape(*hidden.shape[:2], 2, 2)
        own = torch.where((response > 0.5)[:, None, None], logits[:, :, 1], logits[:, :, 0])
        margin = own[..., 1] - own[..., 0]
        positives = functional.softplus(-margin.gather(1, high))
        negatives = functional.softplus(margin.gather(1, low))
        losses = torch.cat([positives, negatives], dim=1)
        return torch.where(mask.sum(-1) >= 2 * self._k, losses.mean(-1), 0.0)
