"""What a model sees of patients, and what it says about them.

Absence is a flag, never a zero: a modality is read only where `present` is true and a token
only where `mask` is true.
"""

from __future__ import annotations

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

    def to(self, device: torch.device | str) -> PatientBatch:
        """Return the batch on another device."""
        moved = pytree.tree_map(lambda tensor: tensor.to(device), self)
        assert isinstance(moved, PatientBatch)
        return moved


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


def _register(cls: type, names: tuple[str, ...]) -> None:
    pytree.register_pytree_node(
        cls,
        lambda value: ([getattr(value, name) for name in names], None),
        lambda children, _context: cls(*children),
        serialized_type_name=f"common.cohort.batch.{cls.__name__}",
    )


_register(
    PatientBatch,
    ("tokens", "mask", "present", "response", "time_months", "event", "observed"),
)
_register(Outputs, ("response_logit", "hazard_logits", "embedding", "attention"))
