"""Model names and what builds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import JsonValue

from common.errors import ConfigError
from common.models.base.base import FusedModel, ModelOptions
from common.models.base.parameters import block_of
from common.models.systems.abmil import Abmil, AbmilOptions
from common.models.systems.amkd import AmkdOptions, AmkdStudent
from common.models.systems.cross_attention import CrossAttention, CrossAttentionOptions
from common.models.systems.foundation import Foundation, FoundationOptions
from common.models.systems.frozen_trunk import FrozenTrunk, FrozenTrunkOptions
from common.models.systems.linear import LinearHeads, LinearOptions
from common.models.systems.moemil import Moemil, MoemilOptions
from common.models.systems.survpgc import SurvPgc, SurvPgcOptions
from common.study.study import Modality, Study

_Entry = tuple[type[ModelOptions], Callable[[Study, Any], FusedModel]]
_REGISTRY: dict[str, _Entry] = {}


def register(
    name: str, options: type[ModelOptions], build: Callable[[Study, Any], FusedModel]
) -> None:
    """Add a model: its name, its options contract and what builds it."""
    _REGISTRY[name] = (options, build)


def available() -> tuple[str, ...]:
    """Return the registered names, sorted."""
    return tuple(sorted(_REGISTRY))


def build_model(study: Study) -> FusedModel:
    """Return the study's model, on CPU, float32, in evaluation mode.

    Initial weights follow from `study.model.init_seed` alone, biases of the heads from the
    published hazards and prevalence. The global random state is left as it was.

    Raises:
        ConfigError: The name is unknown, an option is unknown or wrong, or the study lacks what
            the model reads.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(study.model.init_seed)
        model, options = _create(study, study.model.name, study.model.options, "study.model")
    _freeze_all_but(model, options.trainable)
    return model.eval()


def _create(
    study: Study, name: str, given: Mapping[str, JsonValue], where: str
) -> tuple[FusedModel, ModelOptions]:
    if name not in _REGISTRY:
        raise ConfigError(
            f"there is no model '{name}'",
            where=where,
            cure=f"choose one of {', '.join(available())}",
        )
    contract, build = _REGISTRY[name]
    options = contract.from_mapping(dict(given), where=f"{where}.options")
    return build(study, options), options


def _freeze_all_but(model: FusedModel, prefixes: list[str] | None) -> None:
    for name, parameter in model.named_parameters():
        block_of(name)
        if prefixes is not None and not name.startswith(tuple(prefixes)):
            parameter.requires_grad = False
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            "no parameter would be trained",
            where="study.model.options.trainable",
            why=f"no parameter name begins with any of {prefixes}",
            cure="name blocks such as heads or fusion",
        )


def _clinical_linear(study: Study, options: LinearOptions) -> FusedModel:
    only: list[Modality] = ["clinical"]
    return LinearHeads(study, options.model_copy(update={"modalities": only}))


def _frozen_trunk(study: Study, options: FrozenTrunkOptions) -> FusedModel:
    given = dict(options.trunk_options)
    if options.modalities is not None:
        given["modalities"] = list(options.modalities)
    trunk, _ = _create(study, options.trunk, given, "study.model.options.trunk")
    return FrozenTrunk(study, options, trunk)


register("linear", LinearOptions, LinearHeads)
register("clinical_linear", LinearOptions, _clinical_linear)
register("moemil", MoemilOptions, Moemil)
register("frozen_trunk", FrozenTrunkOptions, _frozen_trunk)
register("abmil", AbmilOptions, Abmil)
register("survpgc", SurvPgcOptions, SurvPgc)
register("cross_attention", CrossAttentionOptions, CrossAttention)
register("foundation", FoundationOptions, Foundation)
register("amkd_student", AmkdOptions, AmkdStudent)
