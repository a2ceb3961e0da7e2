"""Build a study's model from its name and options."""

from collections.abc import Mapping

import torch
from pydantic import JsonValue

from common.errors import ConfigError, ErrorCode
from common.models.base.base import FusedModel, ModelOptions
from common.models.base.parameters import block_of
from common.study.catalogue import MODELS
from common.study.study import Study


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
        model, options = create_model(study, study.model.name, study.model.options, "study.model")
    _freeze_all_but(model, options.trainable)
    return model.eval()


def create_model(
    study: Study, name: str, values: Mapping[str, JsonValue], where: str
) -> tuple[FusedModel, ModelOptions]:
    """Return a model by name, its weights drawn from the global random state, and its options.

    Args:
        study: Endpoints and feature sets.
        name: Name in the catalogue.
        values: Options as written.
        where: Key of the study that holds name and options.

    Raises:
        ConfigError: As `build_model`; or another distribution offers something that is no
            `FusedModel`, which could not be checked for privacy (PLUGIN).
    """
    entry = MODELS.get(name, where=where)
    kind = entry.load()
    if not (isinstance(kind, type) and issubclass(kind, FusedModel)):
        raise ConfigError(
            f"what is offered as model '{name}' is no FusedModel",
            where=where,
            why="only a subclass of common.models.base.base.FusedModel can be checked for privacy",
            cure="ask its authors for a version compatible with this program",
            code=ErrorCode.PLUGIN,
        )
    options = kind.options.from_mapping(
        {"modalities": list(entry.reads) or None, **values}, where=f"{where}.options"
    )
    return kind(study, options), options


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
