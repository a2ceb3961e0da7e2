import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import DataError, ProtocolError
from common.metrics.summaries.refine import refined
from common.metrics.summaries.tabulate import tabulate
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.table_schema import noise_plan, tables_of
from common.metrics.tables.tables import SiteTables, merge
from common.wire import WireMessage

POOLED = ("survival", "response", "risk_sets", "margin_survival", "margin_time", "margin_response")


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(n=st.integers(0, 40), seed=st.integers(0, 99), n_sites=st.integers(1, 5))
def test_sum_over_sites_is_the_table_of_everybody(grid, make_rows, n, seed, n_sites):
    rows = make_rows(grid, n, seed)
    site = np.random.default_rng(seed).integers(0, n_sites, n)
    fine = refined(grid, tabulate(rows, grid, "margins"))
    whole = tabulate(rows, fine)
    parts = [tabulate(rows.select(site == k), fine) for k in range(n_sites)]
    total = merge(parts)
    for name in whole.arrays.keys() & set(POOLED):
        np.testing.assert_array_equal(total.arrays[name], whole.arrays[name])
    for name in ("brier", "survival_nll", "response_sums", "survival_bin_sums", "d_calibration"):
        np.testing.assert_allclose(total.sums(name), whole.sums(name), atol=1e-8)
    assert_same(merge([merge(parts[:2]), *parts[2:]]) if n_sites > 1 else total, total)
    assert_same(merge(parts[::-1]), total)


def assert_same(first, second):
    assert first.arrays.keys() == second.arrays.keys()
    for name in first.arrays:
        np.testing.assert_array_equal(first.arrays[name], second.arrays[name])


@pytest.mark.parametrize("phase", ["margins", "tables"])
def test_empty_site_sends_zeros_of_the_declared_shapes(grid, make_rows, phase):
    tables = tabulate(make_rows(grid, 0), grid, phase)
    assert {k: v.shape for k, v in tables.arrays.items()} == {
        k: v.shape(grid) for k, v in tables_of(grid, phase).items()
    }
    assert all((array == 0).all() for array in tables.arrays.values())
    assert SiteTables.from_arrays(tables.to_arrays(), grid, phase).arrays.keys()


def test_patients_without_an_outcome_are_not_counted(grid, make_rows):
    rows = make_rows(grid, 30)
    missing = np.where(np.arange(30) < 10, np.nan, rows.time_months)
    unknown = np.where(np.arange(30) < 5, np.nan, rows.response)
    rows = dataclasses.replace(rows, time_months=missing, response=unknown)
    tables = tabulate(rows, grid)
    assert tables.survival.sum() == 20
    assert tables.response.sum() == 25


def test_wire_round_trip_keeps_every_cell(grid, make_rows):
    tables = tabulate(make_rows(grid, 50), grid)
    message = WireMessage(arrays=tables.to_arrays())
    back = WireMessage.decode(*message.encode())
    assert_same(SiteTables.from_arrays(back.arrays, grid, "tables"), tables)


def test_foreign_tables_are_refused_with_every_reason(grid, make_rows):
    arrays = tabulate(make_rows(grid, 50), grid).to_arrays()
    arrays["response"] = -np.ones_like(arrays["response"])
    arrays["survival"] = arrays["survival"].astype(np.float64)
    arrays["rows"] = np.zeros(3, np.int64)
    del arrays["survival_nll"]
    with pytest.raises(ProtocolError) as caught:
        SiteTables.from_arrays(arrays, grid, "tables")
    for words in ("negative count", "float64", "not part of the release", "survival_nll: missing"):
        assert words in str(caught.value)


def test_sites_on_different_grids_do_not_add_up(grid, make_study, make_rows):
    other = EvaluationGrid.for_study(make_study("dp"))
    with pytest.raises(DataError):
        merge([tabulate(make_rows(grid, 5), grid), tabulate(make_rows(other, 5), other)])


def test_dp_sends_only_noised_tables_where_a_patient_moves_one_cell(make_study, make_rows):
    grid = EvaluationGrid.for_study(make_study("dp"))
    rows = make_rows(grid, 80)
    for phase in ("margins", "tables"):
        full = tabulate(rows, grid, phase)
        less = tabulate(rows.select(np.arange(80) != 17), grid, phase)
        noise = noise_plan(grid, phase, two_phases=True)
        assert full.arrays.keys() == noise.keys()
        for name, array in full.arrays.items():
            assert np.abs(array - less.arrays[name]).sum() == noise[name].sensitivity == 1
    assert full.survival.shape == (2, 8, 8)
    assert full.response.shape == (2, 16)


def test_dp_budget_of_both_phases_is_the_study_budget(make_study):
    grid = EvaluationGrid.for_study(make_study("dp"))
    spent = [noise_plan(grid, phase, two_phases=True) for phase in ("margins", "tables")]
    survival = sum(v.epsilon for plan in spent for k, v in plan.items() if "survival" in k)
    response = sum(v.epsilon for plan in spent for k, v in plan.items() if "response" in k)
    assert survival == pytest.approx(grid.plan.survival_epsilon)
    assert response == pytest.approx(grid.plan.response_epsilon)
    alone = noise_plan(grid, "tables", two_phases=False)
    assert alone["survival"].epsilon == grid.plan.survival_epsilon


def test_noise_variance_is_that_of_two_sided_geometric_noise(make_study):
    grid = EvaluationGrid.for_study(make_study("dp"))
    noise = noise_plan(grid, "tables", two_phases=False)["response"]
    stop = 1 - np.exp(-noise.epsilon)
    rng = np.random.default_rng(0)
    draws = rng.geometric(stop, 200_000) - rng.geometric(stop, 200_000)
    assert noise.variance == pytest.approx(draws.var(), rel=0.05)
