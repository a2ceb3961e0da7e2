"""Two laboratory values of the manifest, scaled by public constants, as one token."""

from collections.abc import Mapping

import numpy as np
from pydantic import JsonValue

from client.extract.kinds.extractor import Extractor, InputNames, Kept, fingerprint_of
from common.cohort.features_h5 import FeatureFile
from common.cohort.manifest import PatientRow
from common.contract import Contract
from common.study.study import FeatureSpec

SCALES = {"ldh": (230.0, 70.0), "haemoglobin": (13.3, 1.3)}


class NoParams(Contract):
    """The scales are part of the code."""


class LaboratoryExtractor(Extractor[NoParams]):
    """One token (1, 2) per patient."""

    kind = "laboratory"
    params_class = NoParams

    def __init__(self, feature_name: str, spec: FeatureSpec) -> None:
        super().__init__(feature_name, spec)
        self.fingerprint = fingerprint_of(self.kind, {"scales": SCALES}, code_version=1)

    @staticmethod
    def input_names(spec: FeatureSpec, file: FeatureFile, kept: Kept) -> InputNames:
        """Name the columns."""
        return InputNames(columns=list(SCALES))

    def values(self, row: PatientRow) -> Mapping[str, JsonValue]:
        """Return the known values."""
        return {n: v for n in SCALES if (v := row.clinical.get(n)) is not None}

    def extract(self, row: PatientRow) -> FeatureFile:
        """Return the token."""
        values = [
            (float(row.clinical[name] or 0.0) - center) / scale
            for name, (center, scale) in SCALES.items()
        ]
        return FeatureFile(np.array([values], np.float32))
