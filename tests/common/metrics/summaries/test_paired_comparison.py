"""Paired differences from joint tables against resampled patients and DeLong's paired test."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sksurv.metrics import concordance_index_censored

from common.errors import DataError
from common.metrics.catalogue import METRICS
from common.metrics.summaries.paired import compare, compare_within_sites, tabulate_pair
from common.metrics.summaries.refine import refined
from common.metrics.summaries.summary import summarise
from common.metrics.summaries.tabulate import tabulate
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.predictions import Predictions
from common.metrics.tables.tables import merge


def blurred(grid, rows, amount, seed=1, by_site=None):
    """The same patients seen by a worse model: its logits plus noise."""
    rng = np.random.default_rng(seed)
    logit = np.log(rows.response_prob / (1 - rows.response_prob))
    shift = np.zeros(len(rows)) if by_site is None else 1.2 * by_site
    noisy = logit + amount * rng.normal(size=len(rows)) + shift
    return Predictions.from_logits(
        grid,
        hazard_logits=np.broadcast_to((-1.5 + 0.7 * noisy)[:, None], (len(rows), 5)),
        response_logit=noisy,
        response=rows.response,
        time_months=rows.time_months,
        event=rows.event,
    )


def fine(grid, rows):
    return refined(grid, tabulate(rows, grid, "margins"))


def joint(grid, first, second, site):
    grids = fine(grid, first), fine(grid, second)
    return [
        tabulate_pair(first.select(site == k), second.select(site == k), *grids)
        for k in np.unique(site)
    ]


def test_a_model_against_itself_differs_by_nothing(grid, make_rows):
    rows = make_rows(grid, 200)
    for found in compare(
        joint(grid, rows, rows, np.arange(200) % 4), grid, n_replicates=50
    ).values():
        assert found.difference.value == 0
        assert (found.difference.ci_low, found.difference.ci_high) == (0, 0)
        assert found.p_value == 1


def test_the_difference_is_that_of_the_two_printed_figures(grid, make_rows):
    rows = make_rows(grid, 400)
    worse = blurred(grid, rows, 1.0)
    found = compare(joint(grid, worse, rows, np.arange(400) % 3), grid, n_replicates=20)
    for name, comparison in found.items():
        one, two = (
            summarise({"a": tabulate(p, fine(grid, p))}, fine(grid, p), n_replicates=0)
            for p in (worse, rows)
        )
        told = two.metrics[name].value - one.metrics[name].value
        assert comparison.difference.value == pytest.approx(told, abs=1e-12)
        json.dumps(comparison.as_dict(), allow_nan=False)


def test_the_spread_is_that_of_resampled_patients(grid, make_rows):
    rows = make_rows(grid, 500)
    worse = blurred(grid, rows, 2.0)
    found = compare(joint(grid, worse, rows, np.arange(500) % 3), grid, n_replicates=300)["c_index"]
    rng, drawn = np.random.default_rng(2), []
    for _ in range(200):
        k = rng.integers(0, 500, 500)
        a, b = (
            concordance_index_censored(rows.event[k] > 0, rows.time_months[k], p.risk[k])[0]
            for p in (rows, worse)
        )
        drawn.append(a - b)
    assert found.difference.value == pytest.approx(np.mean(drawn), abs=0.01)
    width = found.difference.ci_high - found.difference.ci_low
    assert width == pytest.approx(2 * 1.96 * np.std(drawn), rel=0.25)
    assert found.p_value < 1e-3


def placements(label, score):
    above = (score[label == 1][:, None] > score[label == 0]) + 0.5 * (
        score[label == 1][:, None] == score[label == 0]
    )
    return above.mean(1), above.mean(0)


@pytest.mark.parametrize("amount", [0.3, 1.5])
def test_auc_difference_has_the_variance_of_delongs_paired_test(grid, make_rows, amount):
    """DeLong et al., Biometrics 1988: covariance of the placements of both models."""
    rows = make_rows(grid, 600)
    worse = blurred(grid, rows, amount)
    found = compare(joint(grid, worse, rows, np.zeros(600)), grid, n_replicates=800)["response_auc"]
    (a1, a0), (b1, b0) = (placements(rows.response, p.response_prob) for p in (rows, worse))
    variance = np.var(a1 - b1, ddof=1) / len(a1) + np.var(a0 - b0, ddof=1) / len(a0)
    width = found.difference.ci_high - found.difference.ci_low
    assert width == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.15)
    unpaired = np.sqrt(sum(np.var(x, ddof=1) / len(x) for x in (a1, a0, b1, b0)))
    assert width < 2 * 1.96 * unpaired * (0.5 if amount < 1 else 0.95)


def test_a_headline_of_the_catalogue_is_compared_without_another_edit(grid, make_rows, monkeypatch):
    c_index = METRICS.get("c_index")
    flipped = replace(c_index, name="flipped", statistic=lambda ranks: 1 - ranks.c_index())
    monkeypatch.setitem(METRICS._entries, "flipped", flipped)
    rows = make_rows(grid, 200)
    tables = joint(grid, blurred(grid, rows, 1.0), rows, np.arange(200) % 3)
    for found in (
        compare(tables, grid, n_replicates=30),
        compare_within_sites({str(k): t for k, t in enumerate(tables)}, grid, n_replicates=30),
    ):
        one, other = found["c_index"].difference, found["flipped"].difference
        assert other.value == pytest.approx(-one.value)
        assert (other.ci_low, other.ci_high) == pytest.approx((-one.ci_high, -one.ci_low))


def test_six_sites_are_drawn_too(grid, make_rows):
    rows = make_rows(grid, 600)
    site = np.arange(600) % 6
    rng = np.random.default_rng(0)
    noise = np.where(site < 2, 3.0, 0.0) * rng.normal(size=600)  # the models differ at two sites
    logit = np.log(rows.response_prob / (1 - rows.response_prob)) + noise
    other = Predictions(**{**vars(rows), "response_prob": 1 / (1 + np.exp(-logit))})
    tables = joint(grid, other, rows, site)
    few, many = compare([*tables[:4], merge(tables[4:])], grid), compare(tables, grid)
    width = [
        c["response_auc"].difference.ci_high - c["response_auc"].difference.ci_low
        for c in (few, many)
    ]
    assert width[1] > width[0]


def test_within_sites_a_shift_between_sites_counts_for_nothing(grid, make_rows):
    rows, site = make_rows(grid, 400), np.arange(400) % 4
    shifted = blurred(grid, rows, 0.0, by_site=site)
    tables = {}
    for k in range(4):
        one, two = shifted.select(site == k), rows.select(site == k)
        tables[f"s{k}"] = tabulate_pair(one, two, fine(grid, one), fine(grid, two))
    for found in compare_within_sites(tables, grid, n_replicates=50).values():
        assert found.difference.value == pytest.approx(0, abs=0.004)
    across = compare(joint(grid, shifted, rows, site), grid, n_replicates=20)
    assert across["c_index"].difference.value > 0.05


def test_within_sites_is_the_patient_weighted_mean_and_names_who_is_left_out(grid, make_rows):
    rows = make_rows(grid, 300)
    site = np.where(np.arange(300) < 200, 0, np.where(np.arange(300) < 290, 1, 2))
    response = np.where(site == 2, 1.0, rows.response)
    rows = Predictions(**{**vars(rows), "response": response})
    worse = blurred(grid, rows, 1.0)
    tables, expected = {}, []
    for k in range(3):
        one, two = worse.select(site == k), rows.select(site == k)
        tables[f"s{k}"] = tabulate_pair(one, two, fine(grid, one), fine(grid, two))
        if k < 2:
            alone = compare([tables[f"s{k}"]], grid, n_replicates=1)["response_auc"]
            expected.append(alone.difference.value * len(one))
    found = compare_within_sites(tables, grid)["response_auc"].difference
    assert found.value == pytest.approx(sum(expected) / 290)
    assert found.ci_low < found.value < found.ci_high
    assert found.reason == "without s2: not estimable there"


def test_nobody_gives_a_reason_and_no_number(grid, make_rows):
    rows = make_rows(grid, 0)
    table = tabulate_pair(rows, rows, grid, grid)
    assert compare([table], grid)["c_index"].difference.value is None
    within = compare_within_sites({"a": table}, grid)["response_auc"]
    assert within.difference.reason == "no hospital alone can estimate both"
    assert within.p_value is None


def test_other_patients_and_noisy_tables_are_refused(grid, make_study, make_rows):
    with pytest.raises(DataError, match="same patients"):
        tabulate_pair(make_rows(grid, 9), make_rows(grid, 9, seed=1), grid, grid)
    coarse = EvaluationGrid.for_study(make_study("dp"))
    with pytest.raises(DataError, match="exact tables"):
        tabulate_pair(make_rows(coarse, 9), make_rows(coarse, 9), coarse, coarse)
