"""Hospitals as they come: empty, all censored, one event, one class, ties everywhere.

Whatever the mixture, the sum of their tables must agree with the pooled rows, and no figure may
be a number that is none.
"""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test
from sklearn.metrics import brier_score_loss, roc_auc_score
from sksurv.metrics import concordance_index_censored

from common.metrics.summaries.additive_sums import brier_terms
from common.metrics.summaries.refine import refined
from common.metrics.summaries.summary import summarise
from common.metrics.summaries.tabulate import tabulate
from common.metrics.survival.risk_sets import risk_sets
from common.metrics.tables.predictions import Predictions
from common.metrics.tables.score_scale import risk_score
from common.metrics.tables.tables import merge

KINDS = ("empty", "all censored", "one event", "one class", "nothing known", "mixed")

patient = st.tuples(
    st.integers(1, 14),  # follow-up in steps of 3.7 months: many ties
    st.booleans(),
    st.booleans(),
    st.integers(-3, 3),  # score: many ties
)
site = st.tuples(st.sampled_from(KINDS), st.lists(patient, max_size=18))


def rows_of(grid, kind, patients):
    if kind == "empty":
        patients = []
    steps, died, responds, score = (
        np.array(column, float)
        for column in (zip(*patients, strict=True) if patients else [()] * 4)
    )
    if kind == "all censored":
        died[:] = 0
    if kind == "one event":
        died[:] = np.arange(len(died)) == 0
    if kind == "one class":
        responds[:] = 1
    if kind == "nothing known":
        steps[:], died[:], responds[:] = np.nan, np.nan, np.nan
    return Predictions.from_logits(
        grid,
        response_logit=score / 2,
        hazard_logits=np.broadcast_to((-1.5 + 0.4 * score)[:, None], (len(score), 5)),
        response=responds,
        time_months=3.7 * steps,
        event=died,
    )


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(sites=[("empty", []), ("empty", [])])
@example(sites=[("all censored", [(3, True, True, 0)] * 9), ("empty", [])])
@example(sites=[("one event", [(3, True, True, 1), (3, True, False, 1)]), ("empty", [])])
@example(sites=[("mixed", [(3, True, True, 0), (3, True, False, 1)])])
@given(sites=st.lists(site, min_size=1, max_size=4))
def test_any_mixture_of_hospitals_agrees_with_its_pooled_rows(grid, sites):
    parts = [rows_of(grid, kind, patients) for kind, patients in sites]
    fine = refined(grid, merge([tabulate(part, grid, "margins") for part in parts]))
    tables = {f"site{k}": tabulate(part, fine) for k, part in enumerate(parts)}
    summary = summarise(tables, fine, n_replicates=0)
    json.dumps(summary.as_dict(), allow_nan=False)
    for view in (summary.overall, *summary.per_site.values(), *summary.leave_one_out.values()):
        for name, estimate in view.metrics.items():
            assert estimate.value is not None or estimate.reason, name
    rows = Predictions.concatenate(parts)
    check_ranks(rows, summary)
    check_curves(rows, fine, tables, summary)
    check_sums(rows, fine, tables, summary)


def check_ranks(rows, summary):
    known = rows.select(rows.has("survival"))
    c_index = summary.metrics["c_index"]
    if c_index.value is not None:
        pooled = concordance_index_censored(known.event > 0, known.time_months, known.risk)[0]
        assert abs(c_index.value - pooled) <= c_index.error_bound + 1e-12
    elif known.event.sum() >= 2:
        assert c_index.reason in (
            "no comparable pair",
            "no pair of patients whose order in time the grid knows",
        )
    answered = rows.select(rows.has("response"))
    auc = summary.metrics["response_auc"]
    if auc.value is not None:
        pooled = roc_auc_score(answered.response, answered.response_prob)
        assert abs(auc.value - pooled) <= auc.error_bound + 1e-12
    else:
        assert min(answered.response.sum(), (1 - answered.response).sum()) < 2


def check_curves(rows, grid, tables, summary):
    """Steps of 3.7 months never share a fine interval, so curves and log-rank are exact."""
    known = rows.select(rows.has("survival"))
    sets = risk_sets(merge(list(tables.values())), grid)
    if not len(known):
        return
    high = risk_score(known.risk, grid.n_intervals) >= grid.risk_threshold
    for member, counts in ((high | ~high, sets.everybody), (high, sets.high), (~high, sets.low)):
        if member.any():
            curve = sets.curve("", counts)
            fitted = KaplanMeierFitter().fit(known.time_months[member], known.event[member])
            reached = curve.time_months <= known.time_months[member].max()
            truth = fitted.predict(curve.time_months[reached]).to_numpy()
            np.testing.assert_allclose(curve.survival[reached], truth, atol=1e-9)
    if high.any() and (~high).any():
        test = logrank_test(
            known.time_months[high], known.time_months[~high], known.event[high], known.event[~high]
        )
        found = summary.metrics["log_rank_chi2"]
        if found.value is not None:
            assert found.value == pytest.approx(test.test_statistic, rel=1e-9, abs=1e-9)


def check_sums(rows, grid, tables, summary):
    known, answered = rows.select(rows.has("survival")), rows.select(rows.has("response"))
    if len(known):
        sums = merge(list(tables.values())).sums("brier")
        pooled = brier_terms(known, grid).sum(0)
        np.testing.assert_allclose(sums[0], pooled, atol=1e-8)
        loss = summary.metrics["survival_nll"].value
        assert loss == pytest.approx(known.survival_nll.mean(), abs=1e-9)
    if len(answered):
        pooled = brier_score_loss(answered.response, answered.response_prob)
        assert summary.metrics["response_brier"].value == pytest.approx(pooled, abs=1e-9)
