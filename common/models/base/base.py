"""Define the contract that every fused model fulfils.

A model is a function of one patient: what it says of a patient does not depend on who else is
in the batch, on their order, or on padding. It reads a modality only where `present` is true
and a token only where `mask` is true.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from common.cohort.batch import Outputs, PatientBatch
from common.contract import Contract
from common.errors import ConfigError
from common.study.modalities import MODALITIES, Modality
from common.study.study import FeatureSpec, Study


class ModelOptions(Contract):
    """Options every model takes; each model adds its own."""

    modalities: list[Modality] | None = None
    """Use these modalities only; all of the study's if not given."""
    trainable: list[str] | None = None
    """Prefixes of the parameter names that are trained; all if not given."""


class FusedModel(nn.Module, ABC):
    """Tokens of several modalities in, response logit and hazard logits out.

    Every parameter name begins with a block (`common.models.base.parameters.BLOCKS`). The
    parameters of a modality's block get an exactly zero gradient from a patient who lacks it.

    Attributes:
        options: Contract of the options.
        features: The feature sets read, in name order.
        uniform_shape: Whether prepared batches have one shape for every patient. They are kept over
            rounds, and without privacy many patients are computed at once.
    """

    options: ClassVar[type[ModelOptions]] = ModelOptions
    uniform_shape: bool = False

    def __init__(self, study: Study, options: ModelOptions) -> None:
        super().__init__()
        self.features = select_features(study, options.modalities)
        self.n_intervals = study.n_intervals
        self.has_response = study.endpoints.response is not None

    def add_parts(
        self, make: Callable[[FeatureSpec], nn.Module], order: Iterable[str] = MODALITIES
    ) -> None:
        """Add a module for every feature set, named `<modality>.<feature set>`.

        Args:
            make: Returns the module of a feature set.
            order: Modalities in the order their weights are drawn.
        """
        for modality in order:
            sets = {n: s for n, s in self.features.items() if s.modality == modality}
            if sets:
                self.add_module(modality, nn.ModuleDict({n: make(s) for n, s in sets.items()}))

    def part(self, name: str) -> nn.Module:
        """Return the module of a feature set that `add_parts` added."""
        return self.get_submodule(f"{self.features[name].modality}.{name}")

    def prepare(self, batch: PatientBatch) -> PatientBatch:
        """Return the batch after the part of the model that has no trained parameter.

        The result depends on the patients alone and may be kept over rounds.
        """
        return batch

    @abstractmethod
    def forward_prepared(self, batch: PatientBatch) -> Outputs:
        """Return the outputs of a batch that `prepare` returned."""

    def forward(self, batch: PatientBatch) -> Outputs:
        """Return the outputs of a batch as the dataset gives it."""
        return self.forward_prepared(self.prepare(batch))

    def training_outputs(self, batch: PatientBatch) -> tuple[Outputs, Tensor | None]:
        """Return the outputs of a prepared batch and a further loss of each patient, (B,).

        The further loss is a sum over patients too; None where the model has none.
        """
        return self.forward_prepared(batch), None


def select_features(study: Study, modalities: list[Modality] | None) -> dict[str, FeatureSpec]:
    """Return the study's feature sets of these modalities (all if None), in name order.

    Raises:
        ConfigError: None is left, or a name cannot be part of a parameter name.
    """
    features = {
        name: spec
        for name, spec in sorted(study.features.items())
        if modalities is None or spec.modality in modalities
    }
    for name in features:
        if "." in name or hasattr(nn.ModuleDict, name):
            raise ConfigError(
                f"'{name}' cannot name a feature set",
                where=f"study.features.{name}",
                why="the name becomes part of parameter names",
                cure="use letters, digits and underscores, and no Python method name",
            )
    if not features:
        raise ConfigError(
            "the model has nothing to read",
            where="study.model.options.modalities",
            why=f"modalities {modalities} have no feature set; the study has "
            f"{', '.join(study.modalities)}",
            cure="name modalities of the study's features, or choose another model",
        )
    return features


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Return softmax over the last axis among masked-in entries; 0 elsewhere and if none.

    Args:
        scores: (..., T).
        mask: (..., T) bool, broadcastable.
    """
    shifted = torch.where(mask, scores, -1e9)
    return torch.where(mask, torch.softmax(shifted, dim=-1), 0.0)
