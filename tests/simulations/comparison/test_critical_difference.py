"""Demsar (2006): the worked example of his tables 2, 5 and 6, and scipy's Friedman test."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from simulations.comparison.critical_difference import friedman_p, nemenyi_distance, rank_arms

PUBLISHED_Q = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]


def test_nemenyi_critical_values_are_the_published_ones():
    for k, q in enumerate(PUBLISHED_Q, 2):
        assert nemenyi_distance(k, 1) / np.sqrt(k * (k + 1) / 6) == pytest.approx(q, abs=1.5e-3)


def test_published_example_of_four_classifiers_on_fourteen_data_sets():
    p = friedman_p(np.array([3.143, 2.000, 2.893, 1.964]), 14)
    assert p == pytest.approx(stats.f.sf(3.69, 3, 39), abs=2e-4)
    assert nemenyi_distance(4, 14) == pytest.approx(1.25, abs=0.005)


def test_statistic_is_scipys_friedman_in_its_corrected_form():
    table = np.random.default_rng(0).normal(size=(9, 5)) + np.arange(5) / 3
    ranks = stats.rankdata(-table, axis=1).mean(0)
    chi2 = stats.friedmanchisquare(*table.T).statistic
    f = 8 * chi2 / (9 * 4 - chi2)
    assert friedman_p(ranks, 9) == pytest.approx(stats.f.sf(f, 4, 32))


def test_arms_are_ranked_and_joined_when_close():
    rng = np.random.default_rng(1)
    base = rng.normal(size=30)
    arms = {"worst": base - 2, "best": base + 2, "same": base + 2 + 0.01 * rng.normal(size=30)}
    found = rank_arms(pd.DataFrame(arms))
    assert list(found.ranks)[-1] == "worst"
    assert found.groups == (tuple(sorted(["best", "same"], key=lambda a: found.ranks[a])),)
    assert found.p_value < 1e-6


def test_hospitals_without_a_figure_are_left_out_and_too_few_give_no_ranking():
    table = pd.DataFrame({"a": [0.7] * 6, "b": [0.6, 0.6, 0.6, 0.6, 0.6, np.nan]})
    assert rank_arms(table).n_blocks == 5
    assert rank_arms(table.iloc[2:]) is None
