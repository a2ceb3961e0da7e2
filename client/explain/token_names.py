"""Names of the tokens and columns of a feature set, for people who read attributions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.cohort.features_h5 import FeatureFile
from common.study.study import FeatureSpec

Kept = npt.NDArray[np.int64]


@dataclass(frozen=True)
class InputNames:
    """Names of one patient's inputs of one feature set.

    Attributes:
        tokens: T names, or None where a token has none that says anything.
        columns: D names, or None where columns are those of an encoder.
    """

    tokens: list[str] | None = None
    columns: list[str] | None = None


def input_names(spec: FeatureSpec, file: FeatureFile, kept: Kept) -> InputNames:
    """Return the names of the tokens that the model read, and of their columns.

    Args:
        spec: The feature set.
        file: The patient's feature file.
        kept: (T,) rows of the file that the model read.
    """
    kind = spec.extractor.kind if spec.extractor is not None else ""
    if kind in _BY_KIND:
        return _BY_KIND[kind](spec, file, kept)
    if spec.names is None:
        return InputNames()
    if spec.pool == "row_mean":
        return InputNames(tokens=[spec.names[k] for k in kept])
    return InputNames(columns=list(spec.names)) if len(spec.names) == spec.dim else InputNames()


def ranked_inputs(
    values: npt.NDArray[np.float32], names: InputNames, top: int
) -> list[tuple[str, float]]:
    """Return the named inputs with the largest absolute attribution, largest first.

    Columns are named where they have names (`t1c: original_glcm_Contrast`), whole tokens
    otherwise; nothing is returned where neither has a name.

    Args:
        values: (T, D) attributions.
        names: Names of tokens and columns.
        top: How many, at most; inputs that moved nothing are left out.
    """
    if names.columns is not None:
        tokens = names.tokens or [""]
        pairs = [
            (f"{token}: {column}" if token else column, float(value))
            for token, row in zip(tokens, values, strict=True)
            for column, value in zip(names.columns, row, strict=True)
        ]
    elif names.tokens is not None:
        sums = values.sum(axis=1, dtype=np.float64)
        pairs = [(name, float(value)) for name, value in zip(names.tokens, sums, strict=True)]
    else:
        return []
    return sorted((p for p in pairs if p[1] != 0), key=lambda pair: -abs(pair[1]))[:top]


def _tiles(spec: FeatureSpec, file: FeatureFile, kept: Kept) -> InputNames:
    if file.coords is None:
        return InputNames()
    slides = file.slide_index
    several = slides is not None and len(np.unique(slides)) > 1
    return InputNames(
        tokens=[
            (f"slide {int(slides[k]) + 1}, " if several and slides is not None else "")
            + f"tile at ({int(file.coords[k, 0])}, {int(file.coords[k, 1])})"
            for k in kept
        ]
    )


def _slices(spec: FeatureSpec, file: FeatureFile, kept: Kept) -> InputNames:
    sequences = _sequences(spec)
    if file.coords is None:
        return InputNames()
    return InputNames(
        tokens=[f"{sequences[int(place)]} slice {int(k)}" for k, place in file.coords[kept]]
    )


def _radiomics(spec: FeatureSpec, file: FeatureFile, kept: Kept) -> InputNames:
    from client.extract.volumes.radiomics import feature_names

    sequences = _sequences(spec)
    columns = feature_names(spec.extractor.params if spec.extractor else {})
    flags = file.features[kept, -len(sequences) :]
    tokens = [sequences[int(place)] for place in flags.argmax(axis=1)]
    return InputNames(tokens=tokens, columns=columns)


def _clinical_text(spec: FeatureSpec, file: FeatureFile, kept: Kept) -> InputNames:
    said = str(file.attrs.get("token_names", "")).split(";")
    return InputNames(tokens=[said[k] for k in kept] if len(said) == len(file.features) else None)


def _clinical_table(spec: FeatureSpec, file: FeatureFile, kept: Kept) -> InputNames:
    from client.extract.clinical.clinical_table import ClinicalTableParams

    params = dict(spec.extractor.params) if spec.extractor else {}
    checked = ClinicalTableParams.from_mapping(params, where="extractor.params")
    return InputNames(columns=checked.columns)


def _pathways(spec: FeatureSpec, file: FeatureFile, kept: Kept) -> InputNames:
    from client.extract.genomics.pathway_params import PathwayParams, load_sets

    if spec.names is not None:
        return InputNames(tokens=[spec.names[k] for k in kept])
    params = dict(spec.extractor.params) if spec.extractor else {}
    where = "extractor.params"
    names = list(load_sets(PathwayParams.from_mapping(params, where=where), where=where))
    return InputNames(tokens=[names[k] for k in kept])


def _sequences(spec: FeatureSpec) -> list[str]:
    named = spec.extractor.params.get("sequences", []) if spec.extractor else []
    return [str(name) for name in named] if isinstance(named, list) else []


_BY_KIND: dict[str, Callable[[FeatureSpec, FeatureFile, Kept], InputNames]] = {
    "tiles": _tiles,
    "slices": _slices,
    "radiomics": _radiomics,
    "clinical_text": _clinical_text,
    "clinical_table": _clinical_table,
    "pathways": _pathways,
}
