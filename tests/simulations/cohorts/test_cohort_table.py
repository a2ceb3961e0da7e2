"""Tables become cohorts cell by cell, and whatever is wrong with them is named at once."""

import numpy as np
import pandas as pd
import pytest

from common.errors import ConfigError, ManifestError
from simulations.cohorts.cohort_columns import CohortColumns
from simulations.cohorts.cohort_table import read_cohort

COLUMNS = {
    "hospital": "centre",
    "time": "days",
    "time_unit": "days",
    "event": "died",
    "response": "responded",
    "features": {
        "genomics": ["gene_*"],
        "scan": {
            "modality": "radiology",
            "columns": ["volume", "texture"],
            "scaling": {"center": [2.0, 5.0], "row_norm": 3.0},
        },
    },
    "clinical": ["age", "sex"],
}


def table(n=40, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "patient_id": [f"TCGA-{i:03d}" for i in range(n)],
            "gene_b": rng.normal(size=n),
            "centre": rng.choice(["02", "NA", "north"], n),
            "days": rng.integers(1, 4000, n),
            "died": rng.integers(0, 2, n),
            "responded": rng.choice([0.0, 1.0, np.nan], n),
            "gene_a": rng.normal(size=n),
            "volume": rng.normal(size=n),
            "texture": rng.normal(size=n),
            "age": rng.integers(30, 80, n),
            "sex": rng.choice(["female", "male"], n),
            "note": "not named, not read",
        }
    )
    frame.loc[:9, ["volume", "texture"]] = np.nan
    frame.loc[20, "texture"] = np.nan
    return frame


def test_every_cell_lands_where_the_columns_say():
    frame = table()
    cohort = read_cohort(frame, COLUMNS, name="made")
    assert cohort.patient_ids == list(frame["patient_id"])
    assert cohort.hospitals == frame["centre"].value_counts().sort_index().to_dict()
    np.testing.assert_allclose(cohort.time_months, frame["days"] / (365.25 / 12))
    np.testing.assert_array_equal(cohort.event, frame["died"])
    np.testing.assert_array_equal(cohort.response, frame["responded"])
    genes = np.concatenate(cohort.features["genomics"])
    np.testing.assert_array_equal(genes, frame[["gene_b", "gene_a"]].to_numpy(np.float32))
    assert cohort.specs["genomics"].names == ["gene_b", "gene_a"]
    assert cohort.specs["scan"].modality == "radiology"
    scans = cohort.features["scan"]
    assert [scan is None for scan in scans] == [True] * 10 + [False] * 30
    assert scans[20][0, 1] == 5.0, "an empty cell beside a full one is the public centre"
    assert "1 empty feature cell" in cohort.notes[-1]
    assert list(cohort.clinical) == ["age", "sex=male"]
    np.testing.assert_array_equal(cohort.clinical["sex=male"], frame["sex"] == "male")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_gives_the_cohort_of_its_frame(tmp_path, kind):
    frame = table()
    path = tmp_path / f"patients.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    filed, held = read_cohort(path, COLUMNS), read_cohort(frame, CohortColumns(**COLUMNS))
    pd.testing.assert_frame_equal(filed.outcomes, held.outcomes)
    pd.testing.assert_frame_equal(filed.clinical, held.clinical)
    for name in held.features:
        for one, other in zip(filed.features[name], held.features[name], strict=True):
            np.testing.assert_array_equal(one, other)


def problems(frame, columns=COLUMNS):
    with pytest.raises(ManifestError) as caught:
        read_cohort(frame, columns)
    return {(p.row, p.column): p for p in caught.value.problems}


def test_all_that_is_wrong_is_named_with_row_and_column():
    frame = table().astype(object)
    frame.loc[3, "patient_id"] = "TCGA-001"
    frame.loc[4, "patient_id"] = None
    frame.loc[5, "centre"] = ""
    frame.loc[6, "centre"] = "St. Mary's"
    frame.loc[7, "gene_a"] = "3,5"
    frame.loc[8, "gene_b"] = np.inf
    frame.loc[9, "days"] = -4
    frame.loc[10, "died"] = 2
    frame.loc[11, "died"] = None
    frame.loc[12, "age"] = "6O"
    frame.loc[13:39, "texture"] = "n.d."
    found = problems(frame)
    assert set(found) == {
        (3, "patient_id"),
        (4, "patient_id"),
        (5, "centre"),
        (6, "centre"),
        (7, "gene_a"),
        (8, "gene_b"),
        (9, "days"),
        (10, "died"),
        (11, "died"),
        (12, "age"),
        *((row, "texture") for row in range(13, 19)),
    }
    assert "first on row 1" in found[3, "patient_id"].what
    assert "decimals with a point" in found[7, "gene_a"].what
    assert found[18, "texture"].what == "and 22 such cells from here on"


def test_rows_of_a_file_are_its_lines(tmp_path):
    frame = table().astype(object)
    frame.loc[7, "gene_a"] = "high"
    path = tmp_path / "patients.csv"
    frame.to_csv(path, index=False)
    assert path.read_text().splitlines()[8].split(",")[6] == "high"
    assert set(problems(path)) == {(9, "gene_a")}


def test_columns_that_cannot_be_are_named_before_any_cell():
    columns = {
        **COLUMNS,
        "response": "respond",
        "features": {"genomics": ["gen_*", "died"], "clinical": ["age"]},
        "clinical": [],
    }
    found = problems(table(), columns)
    assert set(found) == {(None, "respond"), (None, "gen_*"), (None, "died")}
    assert found[None, "respond"].cure == "did you mean 'responded'?"
    assert "cannot be a feature" in found[None, "died"].what
    assert set(problems(table(), {**COLUMNS, "event": None})) == {(None, "time")}
    assert set(problems(table(), {**COLUMNS, "time": "day"})) == {(None, "day")}
    bare = {"hospital": "centre", "features": {"clinical": ["age"]}}
    assert (None, "response") in problems(table(), bare)
    doubled = pd.concat([table(), table()[["age"]]], axis=1)
    assert "occurs twice" in problems(doubled)[None, "age"].what


def test_a_pattern_never_takes_an_outcome_for_a_feature():
    frame = table()[["patient_id", "centre", "days", "died", "responded", "age"]]
    columns = {**COLUMNS, "features": {"clinical": ["*"]}, "clinical": []}
    assert read_cohort(frame, columns).specs["clinical"].names == ["age"]


def test_a_hospital_without_a_usable_patient_is_named():
    frame = table()
    here = frame["centre"] == "north"
    frame.loc[here, ["gene_a", "gene_b", "volume", "texture"]] = np.nan
    ((row, column), problem), *others = problems(frame).items()
    assert (row, column) == (int(np.flatnonzero(here)[0]), "centre")
    assert f"none of its {here.sum()} patients" in problem.what
    assert not others


def test_unknown_keys_and_modalities_are_refused():
    with pytest.raises(ConfigError, match="tme"):
        read_cohort(table(), {**COLUMNS, "tme": "days"})
    with pytest.raises(ConfigError, match="genes"):
        read_cohort(table(), {**COLUMNS, "features": {"genes": ["gene_*"]}})


@pytest.mark.shared_data
def test_ncctg_lung_is_its_published_size(shared_data):
    path = shared_data / "multicentre_survival" / "ncctg_lung.csv"
    frame = pd.read_csv(path, na_values="missing").dropna(subset="fac_inst")
    cohort = read_cohort(
        frame,
        {
            "patient": "pid",
            "hospital": "fac_inst",
            "time": "time",
            "time_unit": "days",
            "event": "event",
            "features": {"clinical": ["num_age", "fac_ph_ecog", "fac_sex"]},
        },
    )
    assert (len(cohort), len(cohort.hospitals), cohort.event.sum()) == (227, 18, 164)
