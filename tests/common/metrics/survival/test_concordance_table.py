import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sksurv.metrics import concordance_index_censored

from common.metrics.survival.concordance import (
    PairCounts,
    c_index_estimate,
    c_index_sd,
    interval_pairs,
    inverse_squares,
    pair_counts,
)


def tabulated(times, events, risks, time_cuts, score_cuts):
    table = np.zeros((2, len(time_cuts) + 1, len(score_cuts) + 1))
    where = (
        np.asarray(events, int),
        np.searchsorted(time_cuts, times, side="left"),
        np.searchsorted(score_cuts, risks, side="right"),
    )
    np.add.at(table, where, 1)
    return table


@st.composite
def patients(draw):
    n = draw(st.integers(2, 40))
    times = draw(st.lists(st.integers(1, draw(st.sampled_from([3, 30]))), min_size=n, max_size=n))
    events = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    risks = draw(st.lists(st.integers(0, draw(st.sampled_from([2, 50]))), min_size=n, max_size=n))
    time_cuts = sorted(draw(st.sets(st.integers(1, 30), max_size=8)))
    score_cuts = sorted(draw(st.sets(st.integers(0, 50), max_size=8)))
    return np.array(times), np.array(events), np.array(risks), time_cuts, score_cuts


@settings(max_examples=300, deadline=None)
@given(patients())
def test_printed_bound_covers_the_error_with_ties_and_any_grid(case):
    times, events, risks, time_cuts, score_cuts = case
    counts = pair_counts(tabulated(times, events, risks, time_cuts, score_cuts))
    try:
        found = concordance_index_censored(events, times.astype(float), risks.astype(float))
    except ValueError:  # all censored: refused by scikit-survival too
        return
    if sum(found[1:4]) == 0:  # no comparable pair
        return
    pooled = found[0]
    assert abs(counts.c_index() - pooled) <= counts.error_bound() + 1e-12


@settings(max_examples=100, deadline=None)
@given(patients())
def test_bound_is_never_above_the_published_one(case):
    counts = pair_counts(tabulated(*case))
    if counts.comparable == 0:
        return
    sharing = counts.same_score + counts.two_events
    sharing += counts.censored_concordant + counts.censored_discordant
    published = (0.5 * sharing + 0.75 * counts.censored_same_score) / counts.comparable
    assert counts.error_bound() <= published + 1e-12


def test_bound_is_the_worst_order_of_doubtful_pairs():
    # One pair known to agree, one known not to; in one interval two doubtful pairs of each kind.
    # Gridded C is 2 / 4. At worst both of one kind count and none of the other: 3 / 4 or 1 / 4.
    counts = PairCounts(*(np.array(float(k)) for k in (1, 1, 0, 0, 2, 2, 0)))
    assert counts.c_index() == 0.5
    assert counts.error_bound() == 0.25


def test_bound_is_zero_where_all_doubtful_pairs_agree():
    counts = PairCounts(*(np.array(float(k)) for k in (0, 0, 0, 0, 3, 0, 0)))
    assert counts.c_index() == 1
    assert counts.error_bound() == 0


def test_equals_scikit_survival_when_no_pair_shares_a_bin():
    rng = np.random.default_rng(0)
    n = 60
    times, risks, events = rng.permutation(n), rng.permutation(n), rng.random(n) < 0.5
    cuts = np.arange(n) + 0.5
    counts = pair_counts(tabulated(times, events, risks, cuts, cuts))
    pooled = concordance_index_censored(events, times.astype(float), risks.astype(float))[0]
    assert counts.c_index() == pytest.approx(pooled, abs=1e-14)
    assert counts.error_bound() == pytest.approx(0, abs=1e-14)


def test_counts_are_those_of_a_double_loop():
    rng = np.random.default_rng(1)
    table = rng.integers(0, 4, (2, 4, 3)).astype(float)
    rows = [(e, t, s) for e, t, s in np.ndindex(2, 4, 3) for _ in range(int(table[e, t, s]))]
    agreeing = comparable = 0.0
    for i, (ei, ti, si) in enumerate(rows):
        for j, (ej, tj, sj) in enumerate(rows):
            concordant = 0.5 if si == sj else float(si > sj)
            if ei and tj > ti:
                weight = 1.0
            elif ei and not ej and ti == tj:
                weight = 0.5
            elif ei and ej and ti == tj and i < j:
                weight, concordant = 1.0, 0.5
            else:
                continue
            agreeing, comparable = agreeing + weight * concordant, comparable + weight
    counts = pair_counts(table)
    assert counts.agreeing == pytest.approx(agreeing)
    assert counts.comparable == pytest.approx(comparable)


def test_batch_equals_one_by_one():
    tables = np.random.default_rng(2).poisson(2.0, (5, 2, 6, 4)).astype(float)
    batch = pair_counts(tables).c_index()
    assert batch == pytest.approx([float(pair_counts(t).c_index()) for t in tables])


def test_uno_with_weight_one_is_harrell():
    table = np.random.default_rng(3).poisson(2.0, (2, 6, 4)).astype(float)
    uno = interval_pairs(table).weighted(inverse_squares(np.ones(6), 6)).c_index()
    assert uno == pytest.approx(float(pair_counts(table).c_index()))


@pytest.mark.parametrize(
    ("died", "censored", "reason"),
    [
        (0, 0, "no patient"),
        (0, 9, "no event"),
        (1, 9, "fewer than 2 events: a C-index from one event is uninformative"),
    ],
)
def test_undefined_c_says_why(died, censored, reason):
    table = np.zeros((2, 3, 3))
    table[1, 0, 1], table[0, 2, 0] = died, censored
    estimate = c_index_estimate(table)
    assert estimate.value is None
    assert estimate.reason is not None
    assert reason in estimate.reason


def test_few_events_carry_a_caveat():
    table = np.zeros((2, 3, 3))
    table[1, 0, 2], table[0, 2, 0] = 3, 9
    estimate = c_index_estimate(table)
    assert estimate.value is not None
    assert estimate.reason == "fewer than 5 events"


def test_jackknife_agrees_with_resampling_patients():
    rng = np.random.default_rng(4)
    n = 400
    risk = rng.normal(size=n)
    death, leaves = rng.exponential(np.exp(-0.6 * risk)), rng.exponential(1.5, n)
    events, times = death <= leaves, np.minimum(death, leaves)
    cuts = np.quantile(times, np.linspace(0, 1, 33)[1:-1])
    scores = np.quantile(risk, np.linspace(0, 1, 33)[1:-1])
    table = tabulated(times, events, risk, cuts, scores)
    drawn = []
    for _ in range(300):
        k = rng.integers(0, n, n)
        drawn.append(concordance_index_censored(events[k], times[k], risk[k])[0])
    assert c_index_sd(table) == pytest.approx(np.std(drawn), rel=0.15)


def test_noise_does_not_bias_the_pair_counts():
    rng = np.random.default_rng(5)
    table = rng.poisson(3.0, (2, 4, 4)).astype(float)
    noisy = table + rng.normal(0, 2.0, (20_000, *table.shape))
    truth, found = pair_counts(table), pair_counts(noisy, cell_variance=4.0)
    assert found.comparable.mean() == pytest.approx(truth.comparable, rel=0.01)
    assert found.agreeing.mean() == pytest.approx(truth.agreeing, rel=0.01)
