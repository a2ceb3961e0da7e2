"""The catalogue of metrics: its entries fit together, and rows agree with outside references."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sksurv.metrics import concordance_index_censored

from common.metrics.catalogue import METRICS, estimates, headlines, metrics_at
from common.metrics.summaries.refine import refined
from common.metrics.summaries.tabulate import tabulate
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.table_schema import TABLES


def test_every_entry_names_a_table_and_is_estimated_from_it(make_study, make_rows):
    grid = EvaluationGrid.for_study(make_study())
    rows = make_rows(grid, 300)
    fine = refined(grid, tabulate(rows, grid, "margins"))
    found = estimates(tabulate(rows, fine), fine, {})
    names = [metric.name for metric in metrics_at(fine.horizons.tolist())]
    assert list(found) == names
    for metric in metrics_at(fine.horizons.tolist()):
        value = found[metric.name].value
        assert metric.scale.low <= value <= metric.scale.high, metric.name
        assert "{" not in metric.full_title
        assert TABLES.get(metric.table).task == metric.task


def test_headlines_are_better_high_or_low_and_know_their_metric_within_sites():
    assert {metric.task for metric in headlines()} == {"response", "survival"}
    for metric in headlines():
        assert metric.scale.direction in ("higher", "lower")
        assert METRICS.get(metric.within_sites).task == metric.task
        assert metric.scale.merit(metric.scale.best) >= metric.scale.merit(metric.no_skill)


def test_the_share_of_pairs_is_that_of_scikit_learn_and_scikit_survival(make_study, make_rows):
    rows = make_rows(EvaluationGrid.for_study(make_study()), 250)
    by_name = {metric.name: metric for metric in headlines()}
    truth = concordance_index_censored(rows.event > 0, rows.time_months, rows.risk)[0]
    assert by_name["c_index"].among(rows) == pytest.approx(truth)
    auc = roc_auc_score(rows.response, rows.response_prob)
    assert by_name["response_auc"].among(rows) == pytest.approx(auc)


def test_pairs_inside_groups_leave_out_all_others(make_study, make_rows):
    rows, group = make_rows(EvaluationGrid.for_study(make_study()), 200), np.arange(200) % 3
    for metric in headlines():
        counts = [metric.pairs(rows.select(group == k)) for k in range(3)]
        right, pairs = np.sum(counts, axis=0)
        assert metric.among(rows, group) == pytest.approx(right / pairs)
        assert pairs < metric.pairs(rows)[1]
        assert np.isnan(metric.among(rows.select(np.arange(1))))
