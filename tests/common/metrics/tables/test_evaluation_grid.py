import numpy as np
import pytest

from common.errors import ConfigError, DataError
from common.metrics.summaries.refine import refined
from common.metrics.summaries.tabulate import tabulate
from common.metrics.tables.bootstrap import draw_noise
from common.metrics.tables.grid import EvaluationGrid, brier_times, time_edges
from common.metrics.tables.predictions import Predictions
from common.metrics.tables.score_scale import margin_cuts, quantile_cuts, risk_score
from common.metrics.tables.table_schema import noise_plan


@pytest.mark.parametrize("release", ["internal", "dp"])
def test_every_horizon_is_an_edge_and_edges_increase(make_study, release):
    grid = EvaluationGrid.for_study(make_study(release))
    assert len(grid.time_edges) == grid.size.times + 1
    assert (np.diff(grid.time_edges[:-1]) > 0).all()
    assert grid.time_edges[0] == 0
    assert np.isinf(grid.time_edges[-1])
    for months in grid.horizons:
        assert grid.time_edges[grid.edge_of(months)] == months
    assert (np.diff(grid.risk_edges[:-1]) > 0).all()
    assert set(grid.time_edges) <= set(grid.risk_edges)


def test_a_death_at_the_horizon_counts_before_it(grid):
    index = grid.time_index([12.0, 12.0001])
    assert grid.time_edges[index[0] + 1] == 12.0
    assert index[1] == index[0] + 1


def test_too_many_horizons_are_refused():
    with pytest.raises(ConfigError, match="horizons"):
        time_edges(4, np.arange(1.0, 9.0), "internal")


def test_brier_times_hold_all_horizons():
    found = brier_times(np.array([12.0, 36.0, 60.0]))
    assert len(found) == 8
    assert {12.0, 36.0, 60.0} <= set(found)
    assert (np.diff(found) > 0).all()


def test_site_rebuilds_the_refined_grid_from_what_the_server_sends(grid, make_study, make_rows):
    server = refined(grid, tabulate(make_rows(grid, 200), grid, "margins"))
    site = EvaluationGrid.for_study(
        make_study(),
        score_cuts={
            "survival": server.survival_cuts.tolist(),
            "response": server.response_cuts.tolist(),
        },
        censoring=server.censoring.tolist(),
        risk_threshold=server.risk_threshold,
    )
    rows = make_rows(grid, 60, seed=3)
    for name, array in tabulate(rows, server).arrays.items():
        np.testing.assert_array_equal(tabulate(rows, site).arrays[name], array)


def test_refined_cuts_fill_all_bins_evenly(grid, make_rows):
    rows = make_rows(grid, 6400)
    fine = refined(grid, tabulate(rows, grid, "margins"))
    filled = tabulate(rows, fine).survival.sum((0, 1))
    assert filled.min() > 50
    assert filled.max() < 150
    assert fine.risk_threshold == pytest.approx(np.median(risk_score(rows.risk, 5)), abs=0.02)


def test_a_given_threshold_becomes_a_cut(grid, make_rows):
    fine = refined(grid, tabulate(make_rows(grid, 300), grid, "margins"), risk_threshold=0.3)
    assert 0.3 in fine.survival_cuts
    assert (np.diff(fine.survival_cuts) > 0).all()


@pytest.mark.parametrize("margin", [np.zeros(100), -np.ones(100)])
def test_without_patients_cuts_stay_the_default(margin):
    fallback = np.arange(7.0)
    np.testing.assert_array_equal(quantile_cuts(margin, 8, fallback), fallback)


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_cuts_lie_where_the_patients_are(noise):
    margin = noise * np.tile([1.0, -1.0], 50)
    margin[40] = 500
    inner = margin_cuts(100)
    cuts = quantile_cuts(margin, 8, np.zeros(7))
    assert inner[39] <= cuts[0] < cuts[-1] <= inner[40] + 1e-9


def test_quantile_cuts_increase_even_where_all_scores_are_equal():
    margin = np.zeros(100)
    margin[40] = 500
    assert (np.diff(quantile_cuts(margin, 64, np.zeros(63))) > 0).all()


def test_noisy_margin_still_finds_the_scores(make_study, make_rows):
    grid = EvaluationGrid.for_study(make_study("dp"))
    rows = make_rows(grid, 300)
    margin = tabulate(rows, grid, "margins").counts("margin_survival")
    score = risk_score(rows.risk, 5)
    spec = noise_plan(grid, "margins", two_phases=True)["margin_survival"]
    rng = np.random.default_rng(0)
    largest = []
    for _ in range(50):
        noisy = margin + draw_noise(margin.shape, spec, 6.0, rng)
        cuts = quantile_cuts(noisy, 8, grid.survival_cuts)
        largest.append(np.bincount(np.searchsorted(cuts, score, "right"), minlength=8).max() / 300)
    assert np.median(largest) < 0.25
    assert np.mean(largest) < 0.35


@pytest.mark.parametrize(
    "cuts", [[1.0], [float("nan")] * 63, list(np.zeros(63)), list(np.arange(63.0))[::-1]]
)
def test_impossible_cuts_are_refused(make_study, cuts):
    with pytest.raises(ConfigError, match="score cuts"):
        EvaluationGrid.for_study(make_study(), score_cuts={"survival": cuts})


@pytest.mark.parametrize("curve", [[1.0], list(np.linspace(0, 1, 65)), [2.0] * 65])
def test_impossible_censoring_curves_are_refused(make_study, curve):
    with pytest.raises(ConfigError, match="censoring"):
        EvaluationGrid.for_study(make_study(), censoring=curve)


def test_predictions_agree_with_the_torch_losses(grid):
    import torch

    from common.models.losses.discrete_time import nll, risk, survival_at

    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 1, (40, 5))
    times, events = rng.uniform(0, 200, 40), (rng.random(40) < 0.5).astype(float)
    found = Predictions.from_logits(grid, hazard_logits=logits, time_months=times, event=events)
    tensor, edges = torch.tensor(logits), torch.tensor(grid.hazard_edges)
    np.testing.assert_allclose(found.risk, risk(tensor).numpy(), atol=1e-12)
    curve = survival_at(tensor, edges, torch.tensor(grid.brier_times))
    np.testing.assert_allclose(found.survival, curve.numpy(), atol=1e-12)
    own = survival_at(tensor, edges, torch.tensor(times)).diagonal()
    np.testing.assert_allclose(found.survival_at_time, own.numpy(), atol=1e-12)
    loss = nll(tensor, torch.tensor(times), torch.tensor(events), edges)
    np.testing.assert_allclose(found.survival_nll, loss.numpy(), atol=1e-9)


def test_impossible_outcomes_are_refused(grid):
    for wrong in ({"event": [2.0]}, {"time_months": [-1.0]}, {"response": [0.5]}):
        with pytest.raises(DataError):
            Predictions.from_logits(grid, **wrong)
