import json

import numpy as np
import pytest
from sksurv.metrics import concordance_index_censored

from common.metrics.summaries.refine import refined
from common.metrics.summaries.summary import summarise
from common.metrics.summaries.tabulate import tabulate
from common.metrics.tables.bootstrap import bootstrap, draw_noise, percentile_interval
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.predictions import Predictions
from common.metrics.tables.table_schema import TableNoise, noise_plan
from common.metrics.tables.tables import SiteTables, merge


def evaluate(grid, rows, site):
    parts = [rows.select(site == k) for k in np.unique(site)]
    fine = refined(grid, merge([tabulate(part, grid, "margins") for part in parts]))
    return fine, {f"site{k}": tabulate(part, fine) for k, part in enumerate(parts)}


@pytest.fixture
def evaluated(grid, make_rows):
    rows, site = make_rows(grid, 400), np.arange(400) % 4
    return rows, *evaluate(grid, rows, site)


def test_summary_of_sites_equals_the_pooled_figures(evaluated):
    rows, grid, per_site = evaluated
    summary = summarise(per_site, grid)
    pooled = concordance_index_censored(rows.event > 0, rows.time_months, rows.risk)[0]
    c_index = summary.metrics["c_index"]
    assert abs(c_index.value - pooled) <= min(c_index.error_bound, 0.002)
    assert c_index.ci_low < pooled < c_index.ci_high
    assert set(summary.per_site) == set(per_site)
    assert {curve.label for curve in summary.curves} == {"all patients", "low risk", "high risk"}
    assert min(curve.at_risk.min() for curve in summary.curves) >= 5
    assert summary.reliability.keys() == {
        "response", "survival_12m", "survival_36m", "survival_60m",
    }  # fmt: skip
    json.dumps(summary.as_dict(), allow_nan=False)


def test_total_alone_gives_the_same_overall_and_no_site(evaluated):
    _, grid, per_site = evaluated
    whole = summarise(per_site, grid)
    total = summarise({"federation": merge(list(per_site.values()))}, grid)
    assert total.metrics == whole.metrics
    assert total.per_site == {}
    assert total.leave_one_out == {}


def test_leave_one_out_is_the_summary_of_the_rest(evaluated):
    _, grid, per_site = evaluated
    summary = summarise(per_site, grid, n_replicates=0)
    rest = {key: tables for key, tables in per_site.items() if key != "site2"}
    alone = summarise(rest, grid, n_replicates=0)
    assert summary.leave_one_out["site2"].metrics == alone.metrics
    name, worst = summary.worst_site["c_index"]
    values = {key: site.metrics["c_index"].value for key, site in summary.per_site.items()}
    assert worst.value == values[name] == min(values.values())


def test_site_effects_do_not_pose_as_discrimination(grid, make_rows):
    rows, site = make_rows(grid, 600, strength=0.0), np.arange(600) % 3
    logits = np.broadcast_to((site - 2.0)[:, None], (600, 5))
    times = rows.time_months / (1 + 3 * site)
    known = Predictions.from_logits(grid, hazard_logits=logits, time_months=times, event=rows.event)
    summary = summarise(evaluate(grid, known, site)[1], evaluate(grid, known, site)[0])
    assert summary.metrics["c_index"].value > 0.6
    assert summary.metrics["c_index_within_sites"].value == 0.5


def test_site_with_one_event_is_uninformative_and_says_so(grid, make_rows):
    rows = make_rows(grid, 60)
    site = np.where(np.arange(60) < 50, 0, 1)
    event = np.where(site == 1, 0.0, rows.event)
    event[55] = 1.0
    rows = Predictions(**{**vars(rows), "event": event})
    fine, per_site = evaluate(grid, rows, site)
    summary = summarise(per_site, fine)
    estimate = summary.per_site["site1"].metrics["c_index"]
    assert estimate.value is None
    assert "one event is uninformative" in estimate.reason
    assert summary.per_site["site1"].n_events is None
    assert any("site1" in line for line in summary.caveats)


@pytest.mark.parametrize("case", ["nobody", "all censored", "one event", "early"])
def test_nothing_estimable_gives_reasons_and_never_a_nan(grid, make_rows, case):
    rows = make_rows(grid, 0 if case == "nobody" else 40)
    event, time = rows.event.copy(), rows.time_months.copy()
    if case != "early":
        event[:] = 0
    if case == "one event":
        event[3] = 1
    if case == "early":
        time = time / 100
    rows = Predictions(**{**vars(rows), "event": event, "time_months": time})
    fine = refined(grid, tabulate(rows, grid, "margins"))
    summary = summarise({"site0": tabulate(rows, fine)}, fine)
    for estimate in summary.metrics.values():
        assert estimate.value is not None or estimate.reason
        assert estimate.value is None or np.isfinite(estimate.value)
    if case == "early":
        assert summary.metrics["brier_60m"].reason == "horizon beyond follow-up"
        assert summary.metrics["auc_60m"].reason == "horizon beyond follow-up"
        assert summary.metrics["rmst"].reason == "horizon beyond follow-up"


def noisy(grid, rows, seed):
    tables = tabulate(rows, grid)
    rng = np.random.default_rng(seed)
    noise = noise_plan(grid, "tables", two_phases=grid.two_phases)
    return SiteTables(
        {
            name: array + draw_noise(array.shape, noise[name], 1.0, rng).astype(np.int64)
            for name, array in tables.arrays.items()
        }
    )


def test_stated_noise_sd_is_the_spread_of_repeated_releases(make_study, make_rows):
    coarse = EvaluationGrid.for_study(make_study("dp"))
    rows = make_rows(coarse, 900)
    grid = refined(coarse, tabulate(rows, coarse, "margins"))
    first = summarise({"a": noisy(grid, rows, 0)}, grid)
    values = {name: [] for name in ("c_index", "response_auc")}
    for seed in range(60):
        tables = noisy(grid, rows, seed)
        for name in values:
            metric = (
                summarise({"a": tables}, grid, n_replicates=0).metrics[name]
                if seed < 3
                else (_value(tables, name))
            )
            values[name].append(metric.value)
    for name, drawn in values.items():
        assert first.metrics[name].noise_sd == pytest.approx(np.std(drawn), rel=0.4)
        assert first.metrics[name].error_bound is None
        assert first.metrics[name].ci_low < np.mean(drawn) < first.metrics[name].ci_high
    assert any("noise" in line for line in first.caveats)
    json.dumps(first.as_dict(), allow_nan=False)


def _value(tables, name):
    from common.metrics.response.roc import roc_estimate
    from common.metrics.survival.concordance import c_index_estimate

    if name == "c_index":
        return c_index_estimate(tables.survival, TableNoise(3.6).variance)
    return roc_estimate(tables.response, noisy=True)


def test_noise_that_drowns_everything_still_gives_a_summary(make_study, make_rows):
    grid = EvaluationGrid.for_study(make_study("dp"))
    rng = np.random.default_rng(0)
    tables = {
        f"site{k}": SiteTables(
            {
                "survival": rng.integers(-9, 10, (2, 8, 8)),
                "response": rng.integers(-9, 10, (2, 16)),
            }
        )
        for k in range(3)
    }
    summary = summarise(tables, grid)
    json.dumps(summary.as_dict(), allow_nan=False)


def test_percentiles_are_refused_where_replicates_are_mostly_undefined():
    drawn = np.array([0.5, 0.6] + [np.nan] * 8)
    assert np.isnan(percentile_interval(drawn)).all()


def test_bootstrap_draws_sites_from_six_on():
    tables = [np.array([[0.0, 10.0 * (k > 2)], [10.0 * (k <= 2), 0.0]]) for k in range(6)]

    def share(drawn):
        return {"share": drawn[:, 1].sum(-1) / drawn.sum((-1, -2))}

    few = bootstrap(tables[:4], share, 400, 0)["share"]
    many = bootstrap(tables, share, 400, 0)["share"]
    assert np.std(few) == pytest.approx(np.sqrt(0.75 * 0.25 / 40), rel=0.15)
    assert np.std(many) == pytest.approx(np.sqrt(0.5 * 0.5 / 6), rel=0.15)
    np.testing.assert_array_equal(many, bootstrap(tables, share, 400, 0)["share"])


def test_cuts_that_do_not_fit_the_model_are_told(make_study, make_rows):
    grid = EvaluationGrid.for_study(make_study("dp"))
    rows = make_rows(grid, 300)
    far = Predictions(**{**vars(rows), "risk": np.clip(rows.risk * 1e-3, -5, 0)})
    lines = summarise({"a": tabulate(far, grid)}, grid).caveats
    assert any("share one survival score bin" in line for line in lines)
    lines = summarise({"a": tabulate(rows, grid)}, grid).caveats
    assert not any("share one" in line for line in lines)


def test_response_only_and_survival_only_studies(make_study, make_rows):
    for task, absent in (("response", "c_index"), ("survival", "response_auc")):
        grid = EvaluationGrid.for_study(make_study(tasks=(task,)))
        rows = make_rows(grid, 120)
        fine, per_site = evaluate(grid, rows, np.arange(120) % 2)
        summary = summarise(per_site, fine)
        assert absent not in summary.metrics
        assert summary.metrics
