import dataclasses

import numpy as np
import pytest
from sksurv.metrics import (
    brier_score,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.nonparametric import CensoringDistributionEstimator
from sksurv.util import Surv

from common.errors import DataError
from common.metrics.summaries.additive_sums import brier_terms, censoring_at, fixed_point
from common.metrics.summaries.refine import refined
from common.metrics.summaries.tabulate import tabulate
from common.metrics.survival.calibration import (
    d_calibration,
    recalibration,
    score_groups,
    weighted_outcomes,
)
from common.metrics.survival.kaplan_meier import censoring_curve
from common.metrics.survival.time_auc import auc_at_edges, integrated_auc, last_followed_edge, uno_c
from common.metrics.tables.score_scale import risk_score


@pytest.fixture
def evaluated(grid, make_rows):
    rows = make_rows(grid, 800, seed=1)
    fine = refined(grid, tabulate(rows, grid, "margins"))
    return rows, fine, tabulate(rows, fine)


def outcome(rows):
    return Surv.from_arrays(rows.event > 0, rows.time_months)


def mean_auc(table, last_edge):
    return integrated_auc(table, auc_at_edges(table, np.arange(1, last_edge + 1)))


def test_auc_at_horizons_is_near_scikit_survival(evaluated):
    rows, grid, tables = evaluated
    edges = np.array([grid.edge_of(h) for h in grid.horizons])
    truth, _ = cumulative_dynamic_auc(outcome(rows), outcome(rows), rows.risk, grid.horizons)
    np.testing.assert_allclose(auc_at_edges(tables.survival, edges), truth, atol=0.003)


def test_integrated_auc_is_near_scikit_survival(evaluated):
    rows, grid, tables = evaluated
    times = grid.time_edges[1 : grid.edge_of(60.0) + 1]
    times = times[times > rows.time_months[rows.event > 0].min()]
    _, truth = cumulative_dynamic_auc(outcome(rows), outcome(rows), rows.risk, times)
    assert mean_auc(tables.survival, grid.edge_of(60.0)) == pytest.approx(truth, abs=0.004)


def test_uno_is_near_scikit_survival(evaluated):
    rows, grid, tables = evaluated
    truth = concordance_index_ipcw(outcome(rows), outcome(rows), rows.risk, tau=60.0)[0]
    assert uno_c(tables.survival, grid.edge_of(60.0)) == pytest.approx(truth, abs=0.003)


def test_batches_equal_one_by_one(grid):
    tables = np.random.default_rng(0).poisson(0.5, (3, 2, 64, 16)).astype(float)
    edge = grid.edge_of(60.0)
    for function in (uno_c, mean_auc):
        batch = function(tables, edge)
        np.testing.assert_allclose(batch, [function(table, edge) for table in tables])


def test_horizon_nobody_outlives_is_left_out(grid):
    table = np.zeros((2, 64, 64))
    table[1, :5, :] = 1
    assert last_followed_edge(table, grid) == 0
    table[0, grid.edge_of(12.0), 0] = 1
    assert last_followed_edge(table, grid) == grid.edge_of(12.0)


def test_censoring_curve_equals_scikit_survival_at_edges(evaluated):
    rows, grid, _ = evaluated
    margin = tabulate(rows, grid, "margins").counts("margin_time")
    curve = censoring_curve(margin[1], margin[0])
    truth = CensoringDistributionEstimator().fit(outcome(rows))
    edges = grid.time_edges[1:50]
    np.testing.assert_allclose(curve[1:50], truth.predict_proba(edges), atol=0.01)
    assert curve[0] == 1
    assert (np.diff(curve) <= 0).all()


def test_deaths_are_at_risk_of_censoring_for_half_their_interval():
    curve = censoring_curve(np.array([2.0, 0.0]), np.array([1.0, 7.0]))
    np.testing.assert_allclose(curve, [1, 8 / 9, 8 / 9])


def test_brier_without_censoring_equals_scikit_survival(grid, make_rows):
    rows = make_rows(grid, 300)
    death = np.random.default_rng(3).exponential(60, 300) + 0.01
    death[0] = 500.0
    rows = dataclasses.replace(rows, time_months=death, event=np.ones(300))
    fine = refined(grid, tabulate(rows, grid, "margins"))
    sums = tabulate(rows, fine).sums("brier")
    _, truth = brier_score(outcome(rows), outcome(rows), rows.survival, grid.brier_times)
    np.testing.assert_allclose(sums[0, :-1] / 300, truth, atol=1e-9)
    ibs = integrated_brier_score(outcome(rows), outcome(rows), rows.survival, grid.brier_times)
    assert sums[0, -1] / 300 == pytest.approx(ibs, abs=1e-9)


def test_brier_with_censoring_is_near_scikit_survival(evaluated):
    rows, grid, tables = evaluated
    _, truth = brier_score(outcome(rows), outcome(rows), rows.survival, grid.brier_times)
    np.testing.assert_allclose(tables.sums("brier")[0, :-1] / len(rows), truth, atol=0.002)


def test_brier_needs_the_second_phase(grid, make_rows):
    assert "brier" not in tabulate(make_rows(grid, 20), grid).arrays
    with pytest.raises(DataError, match="margins"):
        brier_terms(make_rows(grid, 20), grid)
    with pytest.raises(DataError):
        censoring_at(grid, np.ones(2))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e12])
def test_sums_beyond_the_fixed_point_are_refused(value):
    with pytest.raises(DataError):
        fixed_point(np.array([value]))


def test_recalibration_equals_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    logit = np.linspace(-2, 2, 9)
    positive = rng.integers(1, 20, 9).astype(float)
    negative = rng.integers(1, 20, 9).astype(float)
    slope, intercept = recalibration(logit, positive, negative)
    x, y = np.tile(logit, 2)[:, None], np.repeat([1, 0], 9)
    model = LogisticRegression(C=1e12, tol=1e-10, max_iter=10_000)
    model.fit(x, y, sample_weight=np.concatenate([positive, negative]))
    assert slope.value == pytest.approx(model.coef_[0, 0], abs=1e-4)
    assert intercept.value == pytest.approx(model.intercept_[0], abs=1e-4)


@pytest.mark.parametrize(
    ("logit", "positive", "negative", "reason"),
    [
        ([0, 1], [0, 0], [3, 3], "only one outcome"),
        ([1, 1], [3, 1], [3, 3], "all predictions are equal"),
        ([-1, 1], [0, 9], [9, 0], "separated"),
    ],
)
def test_recalibration_that_cannot_be_says_why(logit, positive, negative, reason):
    arrays = (np.array(values, float) for values in (logit, positive, negative))
    for estimate in recalibration(*arrays):
        assert estimate.value is None
        assert reason in estimate.reason


def test_weighted_outcomes_add_up_to_everybody(evaluated):
    rows, grid, tables = evaluated
    for months in grid.horizons:
        died, alive = weighted_outcomes(tables.survival, grid.edge_of(months))
        assert died.sum() + alive.sum() == pytest.approx(len(rows), rel=0.02)


def test_d_calibration_accepts_the_truth_and_refuses_a_wrong_curve(grid, make_rows):
    rows = make_rows(grid, 3000, seed=5)
    rng = np.random.default_rng(6)
    uniform = rng.uniform(size=3000)
    leaves = rng.uniform(size=3000)
    rows = dataclasses.replace(
        rows,
        survival_at_time=np.maximum(uniform, leaves),
        event=(uniform >= leaves).astype(float),
    )
    good = d_calibration(tabulate(rows, grid).sums("d_calibration"))
    assert good.value > 0.01
    worse = dataclasses.replace(rows, survival_at_time=np.sqrt(rows.survival_at_time))
    assert d_calibration(tabulate(worse, grid).sums("d_calibration")).value < 1e-6


def test_score_groups_cover_all_bins_with_five_patients_each():
    counts = np.random.default_rng(0).poisson(0.7, 64).astype(float)
    groups = score_groups(counts)
    assert [part.start for part in groups[1:]] == [part.stop for part in groups[:-1]]
    assert min(counts[part].sum() for part in groups) >= 5
    assert sum(counts[part].sum() for part in groups) == counts.sum()
    assert score_groups(np.array([2.0, 1.0])) == []


def test_risk_score_rises_with_risk():
    risks = np.linspace(-5, 0, 50)
    assert (np.diff(risk_score(risks, 5)) > 0).all()
