"""Subgroups from summed tables against the pooled rows of each level."""

import dataclasses
import json

import numpy as np
import pytest
from sksurv.metrics import concordance_index_censored

from common.metrics.summaries.refine import refined
from common.metrics.summaries.subgroups import gap_of, subgroup_summaries
from common.metrics.summaries.summary import summarise
from common.metrics.summaries.tabulate import tabulate
from common.metrics.tables.bootstrap import draw_noise
from common.metrics.tables.estimate import Estimate, not_estimable
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.table_schema import noise_plan, tables_of
from common.metrics.tables.tables import SiteTables

SEX = {"column": "clinical_sex", "levels": {"male": ["m"], "female": ["f"], "other": ["d"]}}
AGE = {"column": "clinical_age", "bands": [50, 65, 75]}


def in_levels(rows, **levels):
    return dataclasses.replace(rows, subgroups=levels)


def one_site(grid, rows):
    fine = refined(grid, tabulate(rows, grid, "margins"))
    return summarise({"a": tabulate(rows, fine)}, fine, n_replicates=0).subgroups


@pytest.fixture
def sexes(make_study, make_rows):
    """200 patients: levels in the grid's order are female, male, other."""
    grid = EvaluationGrid.for_study(make_study(subgroups={"sex": SEX}))
    rows = make_rows(grid, 400)
    level = np.where(np.arange(400) < 10, 2, np.arange(400) % 2)
    level[-5:] = -1
    return grid, in_levels(rows, sex=level)


def test_a_level_equals_the_pooled_figure_of_its_patients(sexes):
    grid, rows = sexes
    found = one_site(grid, rows)["sex"]
    for index, name in enumerate(("female", "male")):
        own = rows.select(rows.subgroups["sex"] == index)
        pooled = concordance_index_censored(own.event > 0, own.time_months, own.risk)[0]
        c_index = found.levels[name]["c_index"]
        assert abs(c_index.value - pooled) <= c_index.error_bound
        assert c_index.ci_low < pooled < c_index.ci_high
        assert found.n_patients[name]["c_index"] == len(own)


def test_a_level_below_the_minimum_is_not_estimable_and_says_why(sexes):
    other = one_site(*sexes)["sex"].levels["other"]
    assert other["c_index"].value is None
    assert "fewer than 20 patients" in other["c_index"].reason
    assert "fewer than 20 patients" in other["response_auc"].reason


def test_no_count_is_shown_that_would_give_a_small_one_away(sexes):
    grid, rows = sexes
    level = rows.subgroups["sex"].copy()
    level[3:10] = -1  # three patients are left in level other
    found = one_site(grid, in_levels(rows, sex=level))["sex"]
    assert {n for counts in found.n_patients.values() for n in counts.values()} == {None}
    level[:10] = 2
    level[-5:] = 0
    level[-3:] = -1  # now three patients are in no level
    found = one_site(grid, in_levels(rows, sex=level))["sex"]
    assert found.n_patients["female"]["c_index"] is None


def test_gap_is_best_minus_worst_with_the_spread_of_independent_levels(sexes):
    found = one_site(*sexes)["sex"]
    gap = found.gaps["c_index"]
    values = {name: found.levels[name]["c_index"].value for name in ("female", "male")}
    assert gap.difference.value == pytest.approx(abs(values["female"] - values["male"]))
    assert values[gap.best] == max(values.values())
    assert gap.difference.ci_low < 0 < gap.difference.ci_high
    assert gap.difference.reason is None
    assert 0.05 < gap.p_equal <= 1
    json.dumps(found.as_dict(), allow_nan=False)


def test_picking_the_largest_of_many_differences_widens_the_interval():
    two = gap_of({"a": (Estimate(0.7), 0.02), "b": (Estimate(0.6), 0.02)})
    levels = {"a": (Estimate(0.7), 0.02), "b": (Estimate(0.6), 0.02), "c": (Estimate(0.65), 0.02)}
    three = gap_of(levels)
    assert three.difference.value == two.difference.value == pytest.approx(0.1)
    assert three.difference.ci_low < two.difference.ci_low
    assert "largest of 3" in three.difference.reason


def test_an_interval_over_all_pairs_holds_equal_levels_together_19_times_of_20():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        drawn = {str(k): (Estimate(0.7 + rng.normal(0, 0.03)), 0.03) for k in range(4)}
        held += gap_of(drawn).difference.ci_low <= 0
    assert 0.945 < held / 2000 < 0.985


def test_no_gap_without_two_levels():
    gap = gap_of({"a": (Estimate(0.7), 0.02), "b": (not_estimable("small"), float("nan"))})
    assert gap.difference.value is None
    assert "fewer than two levels" in gap.difference.reason


def test_release_dp_sends_subgroups_only_where_the_study_pays_and_charges_each_table(make_study):
    groups = {"sex": SEX, "age": AGE}
    free = EvaluationGrid.for_study(make_study("dp", subgroups=groups))
    assert set(tables_of(free, "tables")) == {"survival", "response"}
    paid = EvaluationGrid.for_study(make_study("dp", subgroups=groups, subgroup_epsilon=3.0))
    plan = noise_plan(paid, "tables", two_phases=True)
    tables = [name for name in plan if name.startswith("subgroup_")]
    assert sorted(tables) == [
        f"subgroup_{task}_{name}" for task in ("response", "survival") for name in ("age", "sex")
    ]
    assert sum(plan[name].epsilon for name in tables) == pytest.approx(3.0)
    assert plan["survival"].epsilon == pytest.approx(0.9 * 4)
    margins = noise_plan(paid, "margins", two_phases=True)
    assert not [name for name in margins if name.startswith("subgroup_")]


@pytest.mark.parametrize("change", ["comes", "goes"])
def test_one_patient_moves_each_subgroup_table_by_at_most_its_sensitivity(
    make_study, make_rows, change
):
    groups = {"sex": SEX, "age": AGE}
    grid = EvaluationGrid.for_study(make_study("dp", subgroups=groups, subgroup_epsilon=1.0))
    rows = make_rows(grid, 30)
    rng = np.random.default_rng(3)
    levels = {"sex": rng.integers(-1, 3, 30), "age": rng.integers(-1, 4, 30)}
    rows = in_levels(rows, **levels)
    plan = noise_plan(grid, "tables", two_phases=False)
    whole = tabulate(rows, grid).arrays
    for patient in range(30):
        keep = np.arange(30) != patient
        less = tabulate(rows.select(keep), grid).arrays
        for name, array in whole.items():
            moved = array - less[name] if change == "goes" else less[name] - array
            assert np.abs(moved).sum() <= plan[name].sensitivity


def test_noisy_levels_carry_their_noise_and_small_ones_are_refused(make_study, make_rows):
    study = make_study("dp", subgroups={"sex": SEX}, subgroup_epsilon=4.0)
    coarse = EvaluationGrid.for_study(study)
    rows = make_rows(coarse, 900)
    rows = in_levels(rows, sex=np.where(np.arange(900) < 4, 2, np.arange(900) % 2))
    grid = refined(coarse, tabulate(rows, coarse, "margins"))
    noise = noise_plan(grid, "tables", two_phases=True)
    rng = np.random.default_rng(1)
    tables = SiteTables(
        {
            name: array + draw_noise(array.shape, noise[name], 1.0, rng).astype(np.int64)
            for name, array in tabulate(rows, grid).arrays.items()
        }
    )
    found = summarise({"a": tables}, grid).subgroups["sex"]
    female = found.levels["female"]["c_index"]
    assert 0 < female.noise_sd < 0.05
    assert female.error_bound is None
    exact = subgroup_summaries(tabulate(rows, grid), grid, {}, 1.0)["sex"]
    assert female.ci_low < exact.levels["female"]["c_index"].value < female.ci_high
    assert "noisy count" in found.levels["other"]["c_index"].reason
    gap = found.gaps["response_auc"].difference
    assert gap.noise_sd > found.levels["female"]["response_auc"].noise_sd


def test_without_a_budget_levels_say_so(make_study, make_rows):
    grid = EvaluationGrid.for_study(make_study("dp", subgroups={"sex": SEX}))
    rows = in_levels(make_rows(grid, 100), sex=np.arange(100) % 2)
    found = summarise({"a": tabulate(rows, grid)}, grid).subgroups["sex"]
    assert "subgroup_epsilon" in found.levels["male"]["c_index"].reason
