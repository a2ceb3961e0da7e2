import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter, NelsonAalenFitter
from lifelines.statistics import logrank_test
from lifelines.utils import restricted_mean_survival_time
from sksurv.compare import compare_survival
from sksurv.util import Surv

from common.metrics.survival.kaplan_meier import restricted_mean, shown, survival_curve
from common.metrics.survival.log_rank import LogRank, log_rank

EDGES = np.append(np.arange(0.0, 31.0), np.inf)


def counts(times, events, edges=EDGES):
    table = np.zeros((2, len(edges) - 1))
    np.add.at(table, (np.asarray(events, int), np.searchsorted(edges[1:-1], times, "left")), 1)
    return table


def random_patients(seed, n=120):
    rng = np.random.default_rng(seed)
    return rng.integers(1, 30, n), rng.random(n) < 0.6, rng.random(n) < 0.5


def test_equals_lifelines_when_times_lie_on_edges():
    times, events, _ = random_patients(0)
    table = counts(times, events)
    curve = survival_curve("all", table[1], table[0], EDGES, censored_share=0.0)
    fitted = KaplanMeierFitter().fit(times, events)
    reached = curve.time_months <= times.max()
    truth = fitted.predict(curve.time_months[reached]).to_numpy()
    np.testing.assert_allclose(curve.survival[reached], truth, atol=1e-12)
    band = fitted.confidence_interval_survival_function_
    low = np.interp(curve.time_months[:20], band.index, band.iloc[:, 0])
    np.testing.assert_allclose(curve.ci_low[:20], low, atol=1e-9)
    hazard = NelsonAalenFitter(nelson_aalen_smoothing=False).fit(times, events)
    np.testing.assert_allclose(
        curve.cumulative_hazard[reached], hazard.predict(curve.time_months[reached]), atol=1e-12
    )


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1, max_size=60),
    st.sets(st.integers(1, 20), max_size=6),
    st.sampled_from([0.0, 0.5]),
)
def test_printed_bound_covers_the_error_at_every_edge(rows, cuts, share):
    times, events = (np.array(column) for column in zip(*rows, strict=True))
    edges = np.array([0.0, *sorted(cuts), np.inf])
    table = counts(times, events, edges)
    curve = survival_curve("all", table[1], table[0], edges, censored_share=share)
    truth = KaplanMeierFitter().fit(times, events).predict(curve.time_months)
    error = np.abs(curve.survival - np.atleast_1d(truth)) if len(curve.time_months) else np.zeros(1)
    assert np.nanmax(error) <= curve.error_bound + 1e-12


def test_restricted_mean_equals_lifelines_on_fine_intervals():
    times, events, _ = random_patients(1)
    edges = np.append(np.linspace(0, 30, 30 * 200 + 1), np.inf)
    table = counts(times, events, edges)
    curve = survival_curve("all", table[1], table[0], edges, censored_share=0.0)
    found = restricted_mean(curve, 20.0)
    truth, variance = restricted_mean_survival_time(
        KaplanMeierFitter().fit(times, events), t=20.0, return_variance=True
    )
    assert found.value == pytest.approx(truth, abs=0.01)
    assert found.ci_high is not None
    assert found.value is not None
    assert found.ci_high - found.value == pytest.approx(
        1.96 * np.sqrt(variance / len(times)), rel=0.1
    )


def test_restricted_mean_beyond_follow_up_is_refused():
    table = counts([3, 5], [True, False])
    curve = survival_curve("all", table[1], table[0], EDGES)
    assert restricted_mean(curve, 20.0).reason == "horizon beyond follow-up"


def test_log_rank_equals_lifelines_when_times_lie_on_edges():
    times, events, high = random_patients(2)
    test = log_rank(counts(times[high], events[high]), counts(times[~high], events[~high]), 0.0)
    truth = logrank_test(times[high], times[~high], events[high], events[~high])
    assert test.chi_square.value == pytest.approx(truth.test_statistic, rel=1e-10)
    assert test.p_value.value == pytest.approx(truth.p_value, rel=1e-8)


def test_sites_are_strata_by_addition():
    parts, difference, variance = [], 0.0, 0.0
    for seed in (3, 4, 5):
        times, events, high = random_patients(seed, 50)
        parts.append(
            log_rank(counts(times[high], events[high]), counts(times[~high], events[~high]), 0.0)
        )
        _, _, table, covariance = compare_survival(
            Surv.from_arrays(events, times.astype(float)), high, return_stats=True
        )
        difference += float(table.loc[True, "statistic"])
        variance += float(covariance[1, 1])
    assert sum(part.difference for part in parts) == pytest.approx(difference, abs=1e-9)
    assert sum(part.variance for part in parts) == pytest.approx(variance, rel=1e-9)


def test_log_rank_without_events_says_why():
    assert LogRank(0.0, 0.0).p_value.value is None


def test_shown_curve_hides_points_with_fewer_than_five_followed():
    times, events, _ = random_patients(6, 40)
    table = counts(times, events)
    curve = survival_curve("all", table[1], table[0], EDGES)
    assert curve.at_risk.min() < 5
    visible = shown(curve, exact=True, stride=2)
    assert visible.at_risk.min() >= 5
    assert visible.events.sum() <= curve.events.sum()
    assert len(visible.time_months) < len(curve.time_months)
