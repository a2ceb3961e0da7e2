"""Rules against lying sites, held against closed forms and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.study.catalogue import RULES as CATALOGUE
from common.study.federated_method import AggregationRule, load_rule
from server.aggregate.centred_clipping import centred_clipping
from server.aggregate.coordinate_rules import median, trimmed_mean
from server.aggregate.krum import krum, krum_scores
from server.aggregate.robust_mean import robust_mean, shortened

RULES = [entry.name for entry in CATALOGUE if not entry.additive]
every_rule = pytest.mark.parametrize("rule", RULES)


def rows(seed, n=7, d=5):
    return np.random.default_rng(seed).normal(1.0, 0.3, (n, d))


@given(st.integers(0, 999), st.integers(3, 12), st.sampled_from([0.0, 0.1, 0.2, 0.4]))
@settings(max_examples=40, deadline=None)
def test_trimmed_mean_is_scipys_where_the_cut_is_whole(seed, n, trim):
    found = trimmed_mean(rows(seed, n), trim)
    cut = min(max(int(trim * n), 1 if trim else 0), (n - 1) // 2)
    oracle = stats.trim_mean(rows(seed, n), (cut + 1e-9) / n, axis=0)
    np.testing.assert_allclose(found, oracle, atol=1e-12)


def test_trimming_all_but_one_or_two_is_the_median():
    for n in (5, 6):
        table = rows(1, n)
        np.testing.assert_allclose(trimmed_mean(table, 0.49), median(table))


def test_krum_by_hand():
    # 0, 1, 3, 10 on a line, f = 1: one neighbour each; squared distances 1, 1, 4, 49
    line = np.array([[0.0], [1.0], [3.0], [10.0]])
    np.testing.assert_allclose(krum_scores(line, 1), [1.0, 1.0, 4.0, 49.0])
    assert krum(line, 1) == 0.0
    # f = 0: two neighbours: 0 -> 1+9, 1 -> 1+4, 3 -> 4+9, 10 -> 49+81
    np.testing.assert_allclose(krum_scores(line, 0), [10.0, 5.0, 13.0, 130.0])
    assert krum(line, 0) == 1.0


def test_krum_of_many_sites_has_the_same_scores():
    many = np.random.default_rng(0).normal(size=(70, 4))
    few = np.square(many[:, None] - many[None]).sum(-1)
    np.fill_diagonal(few, np.inf)
    np.testing.assert_allclose(krum_scores(many, 3), np.sort(few, 1)[:, :65].sum(1), rtol=1e-9)


def test_one_liar_moves_the_clipped_centre_by_at_most_tau_over_n():
    honest = np.tile([[2.0, 0.0]], (4, 1))
    liar = np.array([[-1e9, 1e9]])
    start = np.array([2.0, 0.0])
    moved = centred_clipping(np.vstack([honest, liar]), start, radius=0.5, iterations=1)
    assert np.linalg.norm(moved - start) == pytest.approx(0.5 / 5)


def test_clipping_wider_than_every_distance_is_the_mean():
    table = rows(3)
    found = centred_clipping(table, np.zeros(5), radius=1e6, iterations=1)
    np.testing.assert_allclose(found, table.mean(0))


@every_rule
@pytest.mark.parametrize("attack", [100.0, -5.0, 1e12])
def test_every_rule_stays_among_the_honest_whatever_one_site_sends(rule, attack):
    honest = {f"s{i}": {"heads.w": rows(i, 1)[0]} for i in range(6)}
    lying = honest | {"s3": {"heads.w": attack * honest["s3"]["heads.w"]}}
    weights = dict.fromkeys(honest, 1.0)
    truth = np.mean([u["heads.w"] for s, u in honest.items() if s != "s3"], axis=0)
    spec = AggregationRule(rule=rule, iterations=20)
    found = robust_mean(lying, weights, spec, {})["heads.w"]
    plain = robust_mean(lying, weights, AggregationRule(), {})["heads.w"]
    assert np.linalg.norm(found - truth) < 0.8
    assert np.linalg.norm(plain - truth) > 1.5


@every_rule
def test_every_rule_forgets_the_order_of_the_sites_and_keeps_what_all_say(rule):
    combine, table, start = load_rule(AggregationRule(rule=rule)), rows(5), np.zeros(5)
    given = combine(rows=table, weights=np.ones(7), centre=start)
    turned = combine(rows=table[::-1], weights=np.ones(7), centre=start)
    np.testing.assert_allclose(turned, given, atol=1e-12)
    alike = combine(rows=np.tile(table[:1], (7, 1)), weights=np.ones(7), centre=start)
    np.testing.assert_allclose(alike, table[0], atol=1e-9)


def test_blocks_are_combined_over_those_who_send_them():
    updates = {
        "a": {"heads.w": np.array([1.0]), "radiology.w": np.array([4.0])},
        "b": {"heads.w": np.array([2.0])},
        "c": {"heads.w": np.array([9.0]), "radiology.w": np.array([8.0])},
    }
    found = robust_mean(updates, {"a": 1.0, "b": 1.0, "c": 3.0}, AggregationRule(rule="median"), {})
    assert found["heads.w"] == 2.0
    assert found["radiology.w"] == 7.0  # two senders: the weighted mean


def test_shortening_leaves_all_but_the_longest_alone():
    updates = {s: {"heads.w": np.array([v])} for s, v in (("a", 1.0), ("b", -2.0), ("c", 300.0))}
    found = shortened(updates, 2.0)
    assert [found[s]["heads.w"][0] for s in "abc"] == [1.0, -2.0, 4.0]
    assert shortened(updates, None) == updates
