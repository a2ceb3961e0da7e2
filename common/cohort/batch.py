"""Define a batch of patients, the input of a model, and the model's outputs.

Absence is a flag, never a zero: a modality is read only where `present` is true and a token
only where `mask` is true.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


@dataclass
class PatientBatch:
    """B patients, padded.

    Attributes:
        tokens: Per feature set, (B, T, D) float32; padding rows hold zeros.
        mask: Per feature set, (B, T) bool; true where a token is real.
        present: Per feature set, (B,) bool; true where the patient has it.
        response: (B,) float32, 1 = responder; meaningless where not observed.
        time_months: (B,) float32, follow-up time.
        event: (B,) float32, 1 = died, 0 = censored.
        observed: Per task ("response", "survival"), (B,) bool.
    """

    tokens: dict[str, Tensor]
    mask: dict[str, Tensor]
    present: dict[str, Tensor]
    response: Tensor
    time_months: Tensor
    event: Tensor
    observed: dict[str, Tensor]

    def __len__(self) -> int:
        """Return the number B of patients."""
        return int(self.response.shape[0])

    def real_tokens(self, feature: str) -> tuple[Tensor, Tensor]:
        """Return (tokens (B, T, D), mask (B, T)) with everything that is not there set to 0.

        Whatever stands behind `present` false or `mask` false, NaN included, is not read.
        """
        mask = self.mask[feature] & self.present[feature].unsqueeze(-1)
        return torch.where(mask.unsqueeze(-1), self.tokens[feature], 0.0), mask

    def to(self, device: torch.device | str) -> "PatientBatch":
        """Return the batch on another device."""
        copy = pytree.tree_map(lambda tensor: tensor.to(device), self)
        assert isinstance(copy, PatientBatch)
        return copy


@dataclass
class Outputs:
    """What a model says about B patients.

    Attributes:
        response_logit: (B,) logit of response.
        hazard_logits: (B, K) logit of dying in interval k given alive at its start.
        embedding: (B, E) fused patient embedding.
        attention: Per feature set, (B, T) weights that sum to 1 over real tokens.
    """

    response_logit: Tensor
    hazard_logits: Tensor
    embedding: Tensor
    attention: dict[str, Tensor] = field(default_factory=dict)


for _kind in (PatientBatch, Outputs):
    pytree.register_dataclass(_kind, serialized_type_name=f"common.cohort.batch.{_kind.__name__}")
