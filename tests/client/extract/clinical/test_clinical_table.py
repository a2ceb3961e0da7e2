"""The typed clinical vector: public scaling, one-hot, a flag for each missing value."""

import numpy as np
import pytest

from client.extract.clinical.clinical_table import ClinicalTableExtractor
from client.extract.kinds.extractor import create_extractor
from common.cohort.manifest import PatientRow
from common.errors import ConfigError, ExtractionError
from common.study.study import FeatureSpec

VARIABLES: list[dict[str, object]] = [
    {"kind": "numeric", "name": "age", "center": 60, "scale": 10, "low": 0, "high": 120},
    {
        "kind": "categorical",
        "name": "sex",
        "categories": ["female", "male"],
        "aliases": {"F": "female", "1": "male"},
        "missing": ["not reported"],
    },
    {"kind": "ordinal", "name": "stage", "levels": ["I", "II", "III"], "missing": ["X"]},
]
NAMES = ["age", "age?missing", "sex=female", "sex=male", "sex?missing", "stage", "stage?missing"]


def make(
    variables: list[dict[str, object]] = VARIABLES, dim: int = 7, names: list[str] | None = None
) -> ClinicalTableExtractor:
    spec = FeatureSpec.model_validate(
        {
            "modality": "clinical",
            "dim": dim,
            "names": names,
            "extractor": {"kind": "clinical_table", "params": {"variables": variables}},
        }
    )
    extractor = create_extractor("table", spec)
    assert isinstance(extractor, ClinicalTableExtractor)
    return extractor


@pytest.mark.parametrize(
    ("clinical", "expected"),
    [
        ({"age": 75.0, "sex": "male", "stage": "II"}, [1.5, 0, 0, 1, 0, 0, 0]),
        ({"age": 20.0, "sex": "F", "stage": "I"}, [-3, 0, 1, 0, 0, -1, 0]),  # -4, clipped
        ({"age": 60.0, "sex": 1.0, "stage": "III"}, [0, 0, 0, 1, 0, 1, 0]),
        ({"age": None, "sex": "not reported", "stage": "X"}, [0, 1, 0, 0, 1, 0, 1]),
        ({"age": 60.0}, [0, 0, 0, 0, 1, 0, 1]),
    ],
)
def test_vectors(clinical: dict[str, str | float | None], expected: list[float]) -> None:
    file = make(names=NAMES).extract(PatientRow(patient_id="p", clinical=clinical))
    assert file.features.shape == (1, 7)
    np.testing.assert_allclose(file.features[0], expected)


@pytest.mark.parametrize(
    ("clinical", "column", "why"),
    [
        ({"sex": "diverse"}, "clinical_sex", "'female', 'male'"),
        ({"stage": "IV"}, "clinical_stage", "'I', 'II', 'III'"),
        ({"age": "old"}, "clinical_age", "not a number"),
        ({"age": 610.0}, "clinical_age", "from 0.0 to 120.0"),
        ({"age": -1.0}, "clinical_age", "from 0.0 to 120.0"),
    ],
)
def test_impossible_values_are_named(
    clinical: dict[str, str | float | None], column: str, why: str
) -> None:
    with pytest.raises(ExtractionError, match="impossible value") as caught:
        make().extract(PatientRow(patient_id="p7", clinical=clinical))
    assert "p7" in caught.value.where
    assert column in caught.value.where
    assert why in caught.value.why


def test_values_are_the_declared_and_known_ones() -> None:
    extractor = make()
    row = PatientRow(patient_id="p", clinical={"age": 61.0, "sex": None, "note": "x"})
    assert extractor.values(row) == {"age": 61.0}
    assert extractor.values(PatientRow(patient_id="p", clinical={"note": "x"})) == {}
    assert extractor.inputs(row) == []


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"dim": 6}, "do not fit"),
        ({"names": NAMES[::-1]}, "do not fit"),
        ({"variables": [VARIABLES[0], VARIABLES[0]]}, "may stand once"),
        ({"variables": [{"kind": "date", "name": "d"}]}, "kind"),
        ({"variables": [{**VARIABLES[1], "categories": ["a", "a"]}]}, "may stand once"),
        ({"variables": [{**VARIABLES[1], "aliases": {"f": "frau"}}]}, "unknown categories"),
        ({"variables": [{**VARIABLES[0], "scale": 0}]}, "scale"),
        ({"variables": []}, "variables"),
    ],
)
def test_wrong_parameters_are_refused(arguments: dict[str, object], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        make(**arguments)


def test_fingerprint_follows_the_meaning() -> None:
    changed = [{**VARIABLES[0], "center": 61}, *VARIABLES[1:]]
    reordered = [*VARIABLES[1:], VARIABLES[0]]
    assert len({make().fingerprint, make(changed).fingerprint, make(reordered).fingerprint}) == 3
    assert make().fingerprint == make().fingerprint
