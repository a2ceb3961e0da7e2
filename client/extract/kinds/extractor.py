"""What every extractor is: a pure function from a patient's raw files to one feature file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from pydantic import JsonValue

from common.contract import canonical_json, sha256_hex
from common.errors import ExtractionError

if TYPE_CHECKING:
    from common.cohort.features_h5 import FeatureFile
    from common.cohort.manifest import PatientRow


PROBLEMS = "problems"
"""Attribute of a feature file: JSON list of `{"code", "where", "reason"}`, one for each raw file
that was set aside although the patient has others that are usable."""


class NothingToExtract(ExtractionError):  # noqa: N818 - an outcome rather than a fault
    """The files are sound but hold nothing usable, e.g. a slide without tissue.

    Settled: recorded with its reason, and not tried again until the files or the extractor
    change.
    """


class Extractor(Protocol):
    """Turns one patient's raw files into one feature file.

    An extractor is built as `Kind(feature_name, spec)`, with `feature_name` its key in
    `Study.features` and `spec` a `FeatureSpec`; worker processes build their own copy, so it
    need not be picklable. The constructor reads weights and parameters, never patients.

    Attributes:
        kind: Name in the registry, e.g. `tiles`.
        feature_name: Key in `Study.features` and folder in the feature store.
        fingerprint: 64 hex characters; see `fingerprint_of`. Two files with different
            fingerprints must not be mixed in one study.
    """

    kind: ClassVar[str]

    @property
    def feature_name(self) -> str:
        """Key in `Study.features`."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything but the patient that the features depend on, in hex."""
        ...

    def inputs(self, row: PatientRow) -> list[Path]:
        """Return the raw files (or DICOM folders) of this patient; empty = modality absent."""
        ...

    def values(self, row: PatientRow) -> Mapping[str, JsonValue]:
        """Return what is read from the manifest row itself, e.g. clinical columns; else {}.

        Files and values together decide when a patient is extracted again. A patient with
        neither lacks the modality. Extractors of files only may leave this method out.
        """
        ...

    def extract(self, row: PatientRow) -> FeatureFile:
        """Return the patient's features, (T, spec.dim) float32 and finite.

        Raises:
            NothingToExtract: The files hold nothing usable, e.g. no tissue.
            ExtractionError: A file is unreadable or lacks what is needed; the reason is
                recorded and the others go on.
        """
        ...


def row_values(extractor: Extractor, row: PatientRow) -> Mapping[str, JsonValue]:
    """Return `extractor.values(row)`, or {} for an extractor that reads files only."""
    values = getattr(extractor, "values", None)
    return values(row) if values is not None else {}


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
