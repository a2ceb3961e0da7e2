"""Declared subgroups: strict to write, forgiving to how a hospital writes a cell."""

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from common.contract import canonical_json
from common.study.study import Study
from common.study.subgroups import Subgroup, level_indices, unmatched_values

SEX = {"column": "clinical_sex", "levels": {"male": ["m", "male", 1], "female": ["F", "female", 0]}}


def test_cells_are_matched_as_text_without_case_and_as_numbers():
    sex = Subgroup.model_validate(SEX)
    assert sex.names == ("female", "male")
    cells = ["female", " FEMALE ", "f", 0.0, "0", "M", 1, "w", None, float("nan"), ""]
    assert [sex.index(cell) for cell in cells] == [0, 0, 0, 0, 0, 1, 1, -1, -1, -1, -1]


def test_bands_are_closed_below_and_open_above():
    age = Subgroup(column="clinical_age", bands=[50, 65.5])
    assert age.names == ("below 50", "50 to below 65.5", "65.5 and over")
    assert [age.index(x) for x in (-3.0, 49.9, 50, 65.4, 65.5, 120)] == [0, 0, 1, 1, 2, 2]
    assert age.index("old") == -1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"column": "sex", "levels": {"a": ["a"], "b": ["b"]}}, "column"),
        ({"column": "clinical_sex"}, "either levels or bands"),
        ({"column": "clinical_age", "bands": [1], "levels": SEX["levels"]}, "either"),
        ({"column": "clinical_age", "bands": [60, 50]}, "must increase"),
        ({"column": "clinical_sex", "levels": {"a": ["x", 1], "b": ["1"]}}, "in the levels"),
        ({"column": "clinical_sex", "levels": {"a": ["x"], "b": []}}, "names no value"),
        ({"column": "clinical_sex", "levels": {"a": ["x"]}}, "at least 2"),
        ({"column": "clinical_sex", "levels": {"a": [True], "b": ["b"]}}, "valid"),
        ({"column": "clinical_sex", "bands": [1], "cuts": [1]}, "cuts"),
    ],
)
def test_what_is_ambiguous_is_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        Subgroup.model_validate(keys)


def test_levels_do_not_depend_on_the_order_of_keys():
    """A study travels as canonical JSON with sorted keys; indices must survive that."""
    study = {
        "study_id": "s",
        "endpoints": {"response": {"positive": "yes"}},
        "features": {"x": {"modality": "clinical", "dim": 1}},
        "subgroups": {"sex": SEX, "age": {"column": "clinical_age", "bands": [50, 65]}},
        "sites": [{"site_id": k} for k in "abc"],
    }
    written = Study.model_validate(study)
    travelled = Study.model_validate_json(canonical_json(written.model_dump(mode="json")))
    assert travelled.digest() == written.digest()
    records = [{"sex": "m", "age": 70.0}, {"sex": "f", "age": None}, {}]
    for name, levels in level_indices(written.subgroups, records).items():
        np.testing.assert_array_equal(levels, level_indices(travelled.subgroups, records)[name])
        assert travelled.subgroups[name].names == written.subgroups[name].names


def test_yaml_as_people_write_it():
    text = "{column: clinical_stage, levels: {early: [I, II, 1, 2], late: [III, IV, 3, 4]}}"
    stage = Subgroup.model_validate(yaml.safe_load(text))
    assert [stage.index(x) for x in ("i", "IV", 2.0, "3")] == [0, 1, 0, 1]


def test_cells_that_no_level_names_are_counted():
    sex = Subgroup.model_validate(SEX)
    records = [{"sex": "w"}, {"sex": "w"}, {"sex": None}, {"sex": "m"}, {"sex": 7.0}, {}]
    assert unmatched_values(sex, records) == {"w": 2, "7.0": 1}
