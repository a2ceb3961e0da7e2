import numpy as np
import pytest
from small_site import tile_bag

from client.explain.explain import InputNames, input_names, ranked_inputs
from common.cohort.features_h5 import FeatureFile
from common.study.study import FeatureSpec

RADIOMICS = {"kind": "radiomics", "params": {"sequences": ["t1", "t2"]}}


def spec(**keys) -> FeatureSpec:
    return FeatureSpec.model_validate({"modality": "clinical", "dim": 3} | keys)


def bag(tokens: int, dim: int = 3, **attrs) -> FeatureFile:
    return FeatureFile(np.zeros((tokens, dim), np.float32), attrs=attrs)


def test_columns_of_a_vector_and_rows_of_pathways_have_the_studys_names():
    vector = input_names("f", spec(names=["age", "sex", "stage"]), bag(1), np.arange(1))
    assert vector == InputNames(columns=["age", "sex", "stage"])
    pathways = spec(pool="row_mean", max_tokens=4, names=["A", "B", "C", "D"])
    assert input_names("f", pathways, bag(4), np.arange(4)).tokens == ["A", "B", "C", "D"]


def test_slices_are_named_by_sequence_and_number():
    file = FeatureFile(np.zeros((3, 3), np.float32), np.array([[14, 1], [15, 1], [7, 0]]))
    slices = spec(extractor={"kind": "slices", "params": {"sequences": ["t1", "t1c"]}})
    names = input_names("f", slices, file, np.array([0, 2]))
    assert names.tokens == ["t1c slice 14", "t1 slice 7"]


def test_tiles_are_named_by_place_and_slide():
    one = tile_bag(["a.tif"], 3, np.random.default_rng(0))
    tiles = spec(extractor={"kind": "tiles"})
    assert input_names("f", tiles, one, np.array([1])).tokens == ["tile at (96, 32)"]
    two = tile_bag(["a.tif", "b.tif"], 3, np.random.default_rng(0))
    assert input_names("f", tiles, two, np.array([4])).tokens == ["slide 2, tile at (96, 32)"]


def test_sentences_are_named_by_their_variable():
    text = spec(max_tokens=3, extractor={"kind": "clinical_text"})
    file = bag(2, token_names="age;stage")
    assert input_names("f", text, file, np.arange(2)).tokens == ["age", "stage"]
    assert input_names("f", text, bag(2), np.arange(2)).tokens is None


def test_the_clinical_table_is_named_by_its_variables():
    variables = [{"kind": "categorical", "name": "sex", "categories": ["f", "m"]}]
    table = spec(extractor={"kind": "clinical_table", "params": {"variables": variables}})
    names = input_names("f", table, bag(1), np.arange(1))
    assert names.columns == ["sex=f", "sex=m", "sex?missing"]


def test_radiomics_are_named_by_sequence_and_feature():
    pytest.importorskip("radiomics")
    features = np.zeros((1, 109), np.float32)
    features[0, -1] = 1  # the flag of t2
    radiomics = spec(modality="radiology", dim=109, extractor=RADIOMICS)
    names = input_names("f", radiomics, FeatureFile(features), np.arange(1))
    assert names.tokens == ["t2"]
    assert len(names.columns) == 109
    assert names.columns[-2:] == ["sequence_t1", "sequence_t2"]


def test_a_foreign_bag_has_no_names():
    assert input_names("f", spec(max_tokens=5), bag(5), np.arange(5)) == InputNames()


def test_the_strongest_inputs_come_first_whatever_their_sign():
    values = np.array([[0.1, -0.9, 0.0], [0.3, 0.2, 0.0]], np.float32)
    by_token = ranked_inputs(values, InputNames(tokens=["a", "b"]), 5)
    assert [(name, pytest.approx(value)) for name, value in by_token] == [("a", -0.8), ("b", 0.5)]
    both = ranked_inputs(values, InputNames(tokens=["a", "b"], columns=["x", "y", "z"]), 2)
    assert [name for name, _ in both] == ["a: y", "b: x"]
    alone = ranked_inputs(values[:1], InputNames(columns=["x", "y", "z"]), 5)
    assert [name for name, _ in alone] == ["y", "x"]  # what moved nothing is left out
    assert ranked_inputs(values, InputNames(), 5) == []
