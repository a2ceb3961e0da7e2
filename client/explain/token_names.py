"""Name the tokens and columns of a feature set for readers of attributions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from client.extract.kinds.extractor import InputNames, Kept, extractor_class
from common.cohort.features_h5 import FeatureFile
from common.study.study import FeatureSpec


def input_names(name: str, spec: FeatureSpec, file: FeatureFile, kept: Kept) -> InputNames:
    """Return the names of the tokens that the model read, and of their columns.

    The extractor names them if it can; else they are `names` of the study.

    Args:
        name: The feature set.
        spec: Its specification.
        file: The patient's feature file.
        kept: (T,) rows of the file that the model read.

    Raises:
        ConfigError: The extractor is unknown.
    """
    extractor = extractor_class(name, spec) if spec.extractor is not None else object
    if hasattr(extractor, "input_names"):
        names: InputNames = extractor.input_names(spec, file, kept)
        return names
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
