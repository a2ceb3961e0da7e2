"""Contract of an extractor: a pure function from a patient's raw files to one feature file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from common.cohort.manifest import PatientRow
from common.contract import Contract, canonical_json, sha256_hex
from common.errors import ConfigError, ExtractionError
from common.study.catalogue import EXTRACTORS
from common.study.study import FeatureSpec

if TYPE_CHECKING:
    from common.cohort.features_h5 import FeatureFile


PROBLEMS = "problems"
"""Attribute of a feature file: JSON list of `{"code", "where", "reason"}`, one for each raw file
that was set aside although the patient has others that are usable."""


Params = TypeVar("Params", bound=Contract)

Kept = npt.NDArray[np.int64]
"""Rows of a feature file that the model read, (T,)."""


@dataclass(frozen=True)
class InputNames:
    """Names of one patient's inputs of one feature set.

    Attributes:
        tokens: T names, or None where a token has none that says anything.
        columns: D names, or None where columns are those of an encoder.
    """

    tokens: list[str] | None = None
    columns: list[str] | None = None


class NothingToExtract(ExtractionError):  # noqa: N818 - an outcome rather than a fault
    """The files are sound but hold nothing usable, e.g. a slide without tissue.

    Settled: recorded with its reason, and not tried again until the files or the extractor
    change.
    """


class Extractor(ABC, Generic[Params]):
    """Turns one patient's raw files into one feature file.

    Worker processes build their own copy, so an extractor need not be picklable. The constructor
    reads weights and parameters, never patients, and sets `fingerprint`. An extractor whose
    encoder sees pictures also has `images(row)`, which returns them, (S, P, P, 3) uint8, and a
    name for each; they are drawn beside attributions.

    Attributes:
        kind: Name in the registry, e.g. `tiles`.
        params_class: What `extractor.params` holds.
        feature_name: Key in `Study.features` and folder in the feature store.
        fingerprint: 64 hex characters; see `fingerprint_of`. Two files with different
            fingerprints must not be mixed in one study.

    Args:
        feature_name: Key in `Study.features`.
        spec: Its specification, with parameters of `params_class`.

    Raises:
        ConfigError: The parameters are wrong.
    """

    kind: ClassVar[str]
    params_class: type[Params]

    def __init__(self, feature_name: str, spec: FeatureSpec) -> None:
        values = spec.extractor.params if spec.extractor else {}
        self.feature_name, self.where = feature_name, f"features.{feature_name}"
        self.params = self.params_class.from_mapping(
            dict(values), where=f"{self.where}.extractor.params"
        )
        self.fingerprint = ""

    @staticmethod
    def input_names(spec: FeatureSpec, file: FeatureFile, kept: Kept) -> InputNames:
        """Name tokens and columns for people who read explanations; by default as the study does.

        Args:
            spec: The feature set.
            file: A patient's feature file.
            kept: (T,) rows of the file that the model read.
        """
        if spec.names is None:
            return InputNames()
        if spec.pool == "row_mean":
            return InputNames(tokens=[spec.names[k] for k in kept])
        return InputNames(columns=list(spec.names)) if len(spec.names) == spec.dim else InputNames()

    def inputs(self, row: PatientRow) -> list[Path]:
        """Return the patient's raw files (or DICOM folders); none unless overridden."""
        return []

    def values(self, row: PatientRow) -> Mapping[str, JsonValue]:
        """Return what is read from the manifest row itself, e.g. clinical columns; else {}.

        Files and values together decide when a patient is extracted again. A patient with
        neither lacks the modality.
        """
        return {}

    @abstractmethod
    def extract(self, row: PatientRow) -> FeatureFile:
        """Return the patient's features, (T, spec.dim) float32 and finite.

        Whoever stores them adds fingerprint and digest of the inputs to the attributes.

        Raises:
            NothingToExtract: The files hold nothing usable, e.g. no tissue.
            ExtractionError: A file is unreadable or lacks what is needed; the reason is
                recorded and the others go on.
        """


AnyExtractor = Extractor[Any]


def extractor_class(name: str, spec: FeatureSpec) -> type[AnyExtractor]:
    """Return the class that extracts the feature set `name`.

    Args:
        name: Key in `Study.features`.
        spec: Its specification; `spec.extractor` must be set.

    Raises:
        ConfigError: The feature set has no extractor, or its kind is unknown.
    """
    where = f"features.{name}.extractor"
    if spec.extractor is None:
        raise ConfigError(
            f"feature set '{name}' names no extractor",
            where=where,
            why="without one, feature files can only be brought ready-made",
            cure="name an extractor, or put feature files into the feature store yourself",
        )
    kind: type[AnyExtractor] = EXTRACTORS.get(spec.extractor.kind, where=f"{where}.kind").load()
    return kind


def create_extractor(name: str, spec: FeatureSpec) -> AnyExtractor:
    """Return a new extractor for the feature set `name`.

    Raises:
        ConfigError: As `extractor_class`; or an optional library is not installed, or the
            parameters are wrong.
    """
    return extractor_class(name, spec)(name, spec)


def fingerprint_of(
    kind: str,
    params: Mapping[str, object],
    *,
    code_version: int,
    weights: Mapping[str, str] | None = None,
) -> str:
    """Return the fingerprint of an extractor, 64 hex characters.

    Args:
        kind: Name in the extractor registry.
        params: All parameters with their defaults filled in, as plain JSON values. No path of
            one hospital's disk belongs here; put the digest of the file into `weights`.
        code_version: Integer that the extractor's author raises whenever its output changes.
        weights: Name of each file read beside the patient -> its SHA-256 in hex.

    Example:
        >>> len(fingerprint_of("tiles", {"tile_px": 224}, code_version=1))
        64
    """
    return sha256_hex(
        canonical_json(
            {
                "kind": kind,
                "params": dict(params),
                "code_version": code_version,
                "weights": dict(weights or {}),
            }
        )
    )
