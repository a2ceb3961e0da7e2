import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from common.metrics.response.response_metrics import auc_with_interval
from common.metrics.response.roc import (
    average_precision,
    roc_auc,
    roc_error_bound,
    roc_estimate,
    roc_points,
    roc_sd,
    shown_roc,
)


def tabulated(labels, scores, cuts):
    table = np.zeros((2, len(cuts) + 1))
    np.add.at(table, (np.asarray(labels, int), np.searchsorted(cuts, scores, "right")), 1)
    return table


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=60),
    st.sets(st.integers(0, 20), max_size=6),
)
def test_printed_bound_covers_the_error(rows, cuts):
    labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    table = tabulated(labels, scores, sorted(cuts))
    estimate = roc_estimate(table)
    if labels.all() or not labels.any():
        assert estimate.value is None
        return
    assert estimate.error_bound is not None
    assert abs(estimate.value - roc_auc_score(labels, scores)) <= estimate.error_bound + 1e-12


def test_equals_scikit_learn_when_every_score_has_its_bin():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 40, 200)
    labels = rng.random(200) < scores / 40
    table = tabulated(labels, scores, np.arange(40) + 0.5)
    assert roc_auc(table) == pytest.approx(roc_auc_score(labels, scores), abs=1e-14)
    truth = average_precision_score(labels, scores)
    assert average_precision(table) == pytest.approx(truth, abs=1e-14)
    x, y = roc_points(table)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert set(zip(fpr.round(9), tpr.round(9), strict=True)) <= set(
        zip(x.round(9), y.round(9), strict=True)
    )


def test_delong_of_the_table_is_delong_of_the_rows():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 30, 150)
    labels = rng.random(150) < scores / 30
    pos, neg = scores[labels], scores[~labels]
    kernel = (pos[:, None] > neg) + 0.5 * (pos[:, None] == neg)
    variance = np.var(kernel.mean(1), ddof=1) / len(pos) + np.var(kernel.mean(0), ddof=1) / len(neg)
    table = tabulated(labels, scores, np.arange(30) + 0.5)
    assert roc_sd(table) == pytest.approx(np.sqrt(variance), rel=1e-12)
    found = auc_with_interval(table)
    assert found.ci_low is not None
    assert found.ci_high is not None
    assert 0 < found.ci_low < found.value < found.ci_high < 1


def test_worst_case_bound_is_reached():
    assert roc_error_bound(np.array([[3.0], [4.0]])) == 0.5


def test_shown_roc_joins_small_steps():
    table = np.ones((2, 40))
    found = shown_roc(table, exact=True)
    assert found is not None
    steps = np.diff(found[0]) * 40 + np.diff(found[1]) * 40
    assert steps.min() >= 5
    assert found[0][-1] == found[1][-1] == 1
    assert shown_roc(np.array([[0.0], [9.0]]), exact=True) is None


@pytest.mark.parametrize(("responders", "others"), [(1, 9), (9, 1)])
def test_an_auc_from_one_patient_of_a_class_is_uninformative_and_says_so(responders, others):
    table = np.zeros((2, 4))
    table[1, 2], table[0, 1] = responders, others
    estimate = auc_with_interval(table)
    assert estimate.value is None
    assert "an AUC from one is uninformative" in estimate.reason
    assert auc_with_interval(table, noisy=True).value == 1


def test_few_of_a_class_carry_a_caveat():
    table = np.zeros((2, 4))
    table[1, 1:3], table[0, :2] = 2, 10
    estimate = auc_with_interval(table)
    assert estimate.value is not None
    assert estimate.reason == "fewer than 5 responders or non-responders"
