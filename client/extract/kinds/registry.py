"""Extractors by kind. Importing this file imports none of them."""

from __future__ import annotations

import importlib

from client.extract.kinds.extractor import Extractor
from common.errors import ConfigError
from common.study.extractor_kinds import add_extractor_kind, check_extractor_kind
from common.study.study import FeatureSpec

_LOCATIONS: dict[str, str] = {
    "tiles": "client.extract.slides.tile_extractor:TileExtractor",
    "slices": "client.extract.volumes.slices:SlicesExtractor",
    "radiomics": "client.extract.volumes.radiomics:RadiomicsExtractor",
    "pathways": "client.extract.genomics.genomics:PathwayExtractor",
    "clinical_table": "client.extract.clinical.clinical_table:ClinicalTableExtractor",
    "clinical_text": "client.extract.clinical.clinical_text:ClinicalTextExtractor",
}


def register(kind: str, location: str) -> None:
    """Add an extractor kind.

    Args:
        kind: Name used in `extractor.kind` of a study.
        location: `package.module:Class`; imported when first needed, also in worker processes,
            so it must be importable there. `Class(feature_name, spec)` must be an `Extractor`.
    """
    module, _, name = location.partition(":")
    if not module or not name:
        raise ValueError(f"location must read 'package.module:Class', got {location!r}")
    _LOCATIONS[kind] = location
    add_extractor_kind(kind)


def kinds() -> dict[str, str]:
    """Return every registered kind with its location."""
    return dict(_LOCATIONS)


def create_extractor(name: str, spec: FeatureSpec) -> Extractor:
    """Return a new extractor for the feature set `name`.

    Args:
        name: Key in `Study.features`.
        spec: Its specification; `spec.extractor` must be set.

    Raises:
        ConfigError: The feature set has no extractor, its kind is unknown, an optional library
            is not installed, or its parameters are wrong.
    """
    if spec.extractor is None:
        raise ConfigError(
            f"feature set '{name}' names no extractor",
            where=f"features.{name}.extractor",
            why="without one, feature files can only be brought ready-made",
            cure="name an extractor, or put feature files into the feature store yourself",
        )
    kind = spec.extractor.kind
    check_extractor_kind(name, kind)
    module, _, class_name = _LOCATIONS[kind].partition(":")
    built: Extractor = getattr(importlib.import_module(module), class_name)(name, spec)
    return built
