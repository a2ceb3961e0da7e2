import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sksurv.metrics import concordance_index_censored

from simulations.benchmarks.parts.paired_bootstrap import (
    PairedRanks,
    mean_difference,
    response_pairs,
    survival_pairs,
)


def value(pairs, score, group=None):
    strata = np.full(len(score), "a") if group is None else group
    return PairedRanks(pairs, {"m": score}, strata, draws=2, seed=0).value("m")


def drawn(seed, n=80):
    rng = np.random.default_rng(seed)
    return {
        "score": rng.normal(size=n).round(1),
        "response": rng.integers(0, 2, n).astype(float),
        "time": rng.exponential(20, n).round(1) + 0.05 * np.arange(n),
        "event": rng.integers(0, 2, n).astype(float),
        "group": rng.choice(["a", "b", "c"], n),
    }


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_auc_is_that_of_scikit_learn(seed):
    d = drawn(seed)
    found = value(response_pairs(d["response"]), d["score"])
    assert found == pytest.approx(roc_auc_score(d["response"], d["score"]), abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_c_is_that_of_scikit_survival(seed):
    d = drawn(seed)
    oracle = concordance_index_censored(d["event"] == 1, d["time"], d["score"], tied_tol=1e-12)[0]
    assert value(survival_pairs(d["time"], d["event"]), d["score"]) == pytest.approx(
        oracle, abs=1e-6
    )


def test_a_death_stands_above_a_censoring_at_the_same_time_only():
    pairs = survival_pairs(np.array([5.0, 5.0, 5.0]), np.array([1.0, 0.0, 1.0]))
    assert pairs.rows.tolist() == [0, 2]
    assert pairs.pairs.tolist() == [[0, 1, 0], [0, 1, 0]]


def test_unknown_outcomes_are_in_no_pair():
    d = drawn(1)
    hidden = np.arange(80) % 5 == 0
    response = np.where(hidden, np.nan, d["response"])
    oracle = roc_auc_score(d["response"][~hidden], d["score"][~hidden])
    assert value(response_pairs(response), d["score"]) == pytest.approx(oracle, abs=1e-6)
    time, event = np.where(hidden, np.nan, d["time"]), np.where(hidden, np.nan, d["event"])
    oracle = concordance_index_censored(
        d["event"][~hidden] == 1, d["time"][~hidden], d["score"][~hidden], tied_tol=1e-12
    )[0]
    assert value(survival_pairs(time, event), d["score"]) == pytest.approx(oracle, abs=1e-6)


def test_pairs_inside_groups_do_not_see_the_scale_of_each_group():
    d = drawn(2)
    pairs = response_pairs(d["response"]).inside(d["group"])
    shifted = d["score"] + 100 * (d["group"] == "b")
    assert value(pairs, d["score"], d["group"]) == value(pairs, shifted, d["group"])
    by_hand = total = 0.0
    for name in "abc":
        here = d["group"] == name
        n = (d["response"][here] == 1).sum() * (d["response"][here] == 0).sum()
        by_hand += n * roc_auc_score(d["response"][here], d["score"][here])
        total += n
    assert value(pairs, d["score"], d["group"]) == pytest.approx(by_hand / total, abs=1e-6)


def test_one_replicate_is_the_metric_of_the_patients_drawn():
    d = drawn(3)
    ranks = PairedRanks(
        response_pairs(d["response"]), {"m": d["score"]}, d["group"], draws=1, seed=9
    )
    rng = np.random.default_rng(9)
    rows = []
    for name in "abc":
        members = np.flatnonzero(d["group"] == name)
        counts = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=1)
        rows += list(np.repeat(members, counts[0]))
    oracle = roc_auc_score(d["response"][rows], d["score"][rows])
    assert ranks.replicates("m")[0] == pytest.approx(oracle, abs=1e-6)


def test_the_interval_covers_what_it_should():
    """The spread of a paired difference against 200 fresh samples of the same size."""
    found, drawn_low_high = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=150)
        response = (rng.random(150) < 1 / (1 + np.exp(-truth))).astype(float)
        scores = {
            "good": truth + 0.5 * rng.normal(size=150),
            "bad": truth + 2.0 * rng.normal(size=150),
        }
        ranks = PairedRanks(
            response_pairs(response), scores, np.full(150, "a"), draws=100, seed=seed
        )
        difference = ranks.difference("good", "bad")
        found.append(difference.value)
        drawn_low_high.append((difference.low, difference.high))
    expected = np.mean(found)
    covered = np.mean([low <= expected <= high for low, high in drawn_low_high])
    assert 0.88 <= covered <= 0.98


def test_a_model_against_itself_differs_by_nothing():
    d = drawn(4)
    ranks = PairedRanks(
        response_pairs(d["response"]),
        {"one": d["score"], "two": 3 * d["score"] + 1},
        d["group"],
        draws=50,
        seed=1,
    )
    assert ranks.difference("one", "two").__dict__ == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_mean_over_independent_sets_is_narrower_than_each():
    rng = np.random.default_rng(5)
    ranks = []
    for seed in range(4):
        truth = rng.normal(size=200)
        response = (truth + rng.normal(size=200) > 0).astype(float)
        scores = {"a": truth, "b": rng.normal(size=200)}
        where = np.full(200, "one")
        ranks.append(PairedRanks(response_pairs(response), scores, where, draws=300, seed=seed))
    each = [one.difference("a", "b") for one in ranks]
    mean = mean_difference(ranks, "a", "b")
    assert mean.value == pytest.approx(np.mean([one.value for one in each]))
    width = np.mean([one.high - one.low for one in each])
    assert mean.high - mean.low == pytest.approx(width / 2, rel=0.25)
