import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sksurv.metrics import concordance_index_censored

from simulations.comparison.arm_metrics import arm_scores
from simulations.comparison.comparison import (
    cell_metrics,
    compare_arms,
    holm,
    paired_difference,
)


def rows(seed=0, n=120):
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "time_months": generator.exponential(20, n).round(1) + 0.1,
            "event": generator.integers(0, 2, n).astype(float),
            "risk": generator.normal(size=n).round(1),
            "response": generator.integers(0, 2, n).astype(float),
            "response_prob": generator.uniform(size=n),
            "hospital": generator.choice(["a", "b"], n),
        }
    )


def test_concordance_equals_scikit_survival():
    table = rows()
    oracle = concordance_index_censored(table["event"] == 1, table["time_months"], table["risk"])[0]
    assert arm_scores(table)["c_index"] == pytest.approx(oracle, abs=1e-12)


def test_metrics_are_nan_where_nothing_is_comparable():
    table = rows().assign(event=0.0, response=1.0)
    assert np.isnan(arm_scores(table)["c_index"])
    assert np.isnan(arm_scores(table)["response_auc"])


def test_without_overlap_correction_the_interval_is_the_paired_t_test():
    generator = np.random.default_rng(1)
    arm, reference = generator.normal(0.1, 1, 25), generator.normal(0, 1, 25)
    found = paired_difference(arm, reference, test_share=0.0)
    oracle = stats.ttest_rel(arm, reference)
    low, high = oracle.confidence_interval(0.95)
    assert found.p_value == pytest.approx(oracle.pvalue)
    assert (found.ci_low, found.ci_high) == (pytest.approx(low), pytest.approx(high))
    corrected = paired_difference(arm, reference, test_share=0.25)
    assert corrected.p_value > found.p_value


def test_an_arm_equal_to_the_reference_has_no_difference():
    same = paired_difference(np.full(5, 0.7), np.full(5, 0.7), test_share=0.25)
    assert (same.mean, same.p_value) == (0.0, 1.0)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    adjusted = holm([0.5, float("nan"), 0.9])
    assert np.isnan(adjusted[1])
    assert adjusted[0] == pytest.approx(1.0)


def test_compare_gives_every_arm_a_row_and_pairs_by_cell():
    frames = []
    for seed in (0, 1):
        for fold in (0, 1):
            base = rows(10 * seed + fold)
            for arm, noise in (("pooled", 0.0), ("noisy", 5.0)):
                drawn = np.random.default_rng(fold).normal(size=len(base))
                risk = -base["time_months"] / 20 + noise * drawn
                cell = {"arm": arm, "seed": seed, "fold": fold}
                frames.append(base.assign(risk=risk, **cell))
    cells = cell_metrics(pd.concat(frames))
    table = compare_arms(cells, "pooled", test_share=0.25)
    c = table[table["metric"] == "c_index"].set_index("arm")
    by_hand = cells.pivot(index=["seed", "fold"], columns="arm", values="c_index")
    assert c.loc["noisy", "difference"] == pytest.approx(
        (by_hand["noisy"] - by_hand["pooled"]).mean()
    )
    assert c.loc["noisy", "difference"] < -0.1
    assert c.loc["noisy", "mean"] == pytest.approx(by_hand["noisy"].mean())
    assert np.isnan(c.loc["pooled", "difference"])


def test_inside_hospitals_only_their_own_pairs_count():
    table = rows(n=200).assign(arm="one", seed=0, fold=0)
    table["hospital"] = np.where(table["time_months"] > 15, "a", "b")
    shifted = table.assign(
        risk=table["risk"] + 50 * (table["hospital"] == "b"),
        response_prob=table["response_prob"] + 50 * (table["hospital"] == "b"),
    )
    before, after = cell_metrics(table).iloc[0], cell_metrics(shifted).iloc[0]
    parts = [part for _, part in table.groupby("hospital")]
    pairs = [part["response"].sum() * (1 - part["response"]).sum() for part in parts]
    by_hand = np.average([arm_scores(part)["response_auc"] for part in parts], weights=pairs)
    assert before["response_auc_within"] == pytest.approx(by_hand)
    for metric in ("c_index", "response_auc"):
        assert after[f"{metric}_within"] == pytest.approx(before[f"{metric}_within"])
        assert abs(after[metric] - before[metric]) > 1e-3
