"""Privacy comparisons: what is scored, and which figures make a check fail."""

import numpy as np
import pandas as pd
import pytest
from tiny_consortium import DIMS, tiny_study

from common.privacy.plan import EvaluationRelease
from simulations.arms.private_arms import FLOOR, PrivacyComparison, PrivateArm, compare_private_arms
from simulations.benchmarks.privacy import fed_tcga_brca_privacy, tcga_privacy
from simulations.cohorts.cohort import Cohort
from simulations.scenario.scenario import Arm, Folds, HospitalRule, Scenario, TcgaSource
from simulations.scenario.scenario_study import NO_PRIVACY


def cells(means, noise=0.002, metric="c_index", seeds=5):
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        for fold in range(5):
            base = rng.normal(0, 0.02)
            for arm, mean in means.items():
                value = mean + base + noise * rng.normal()
                other = {"c_index", "response_auc"} - {metric}
                rows.append(
                    {"arm": arm, "seed": seed, "fold": fold, metric: value, other.pop(): np.nan}
                )
    return PrivacyComparison(pd.DataFrame(rows), 5)


def fed_means(**changed):
    means = {arm.name: 0.75 for arm in fed_tcga_brca_privacy.arms()}
    means |= {"local-3": 0.72, "alone-3": 0.62}
    return means | changed


@pytest.mark.parametrize(
    ("arm", "value", "fails"),
    [
        ("distributed-3", 0.735, False),
        ("distributed-3", 0.725, True),
        ("distributed-8", 0.745, False),
        ("distributed-8", 0.735, True),
        ("distributed-n6-8", 0.735, True),
        ("local-8", 0.725, True),
    ],
)
def test_a_mode_that_loses_too_much_fails(arm, value, fails):
    found = cells(fed_means(**{arm: value}))
    checks = list(fed_tcga_brca_privacy.comparison_checks(found))
    lost = next(check for check in checks if f"lost by {arm} " in check.what)
    assert lost.holds is not fails
    assert sum(not check.holds for check in checks if "lost by" in check.what) == int(fails)


def test_figures_stand_beside_those_of_the_design():
    checks = list(fed_tcga_brca_privacy.comparison_checks(cells(fed_means())))
    told = {check.what: check.note for check in checks}
    assert "0.715" in told["C-index of distributed-1"]
    assert "0.715" in told["C-index of distributed-n6-1"]


def variants(trunk, raw=0.60):
    floor = {FLOOR: 0.64}
    names = [arm.name for arm in tcga_privacy.arms()]
    return {
        "raw": cells(dict.fromkeys(names, raw) | floor),
        "trunk": cells({name: trunk.get(name, 0.70) for name in names} | floor),
    }


@pytest.mark.parametrize(("private", "kept"), [(0.70, True), (0.69, False)])
def test_a_gain_must_be_kept(private, kept):
    found = list(tcga_privacy.metric_checks("x", variants({"distributed-3": private}), "c_index"))
    assert "share of the trunk's gain" in found[0].what
    assert found[0].holds is kept
    assert found[0].value == pytest.approx((private - 0.64) / 0.06, abs=0.03)


def test_without_a_gain_there_is_none_to_keep_and_it_says_so():
    means = dict.fromkeys((arm.name for arm in tcga_privacy.arms()), 0.64)
    found = list(tcga_privacy.metric_checks("x", variants(means), "c_index"))
    assert "no gain to keep" in found[0].note
    assert found[0].holds


def small_scenario():
    study = tiny_study()
    return Scenario(
        name="tiny",
        cohort=TcgaSource(name="none"),
        hospitals=HospitalRule(),
        features=list(DIMS),
        endpoints=study.endpoints,
        training=study.training.model_copy(update={"rounds": 15}),
        folds=Folds(count=2),
        seeds=[0],
        reference="x",
        arms=[Arm(name="x")],
    )


def small_cohort(n=120):
    rng = np.random.default_rng(1)
    study = tiny_study()
    bags = {name: rng.normal(size=(n, 1, dim)).astype(np.float32) for name, dim in DIMS.items()}
    score = bags["clinical"][:, 0, 0]
    return Cohort(
        name="tiny",
        patient_ids=[f"p{i}" for i in range(n)],
        hospital=rng.choice(["a", "b", "c"], n),
        specs=dict(study.features),
        features={name: list(rows) for name, rows in bags.items()},
        response=(rng.random(n) < 1 / (1 + np.exp(-3 * score))).astype(float),
        time_months=rng.exponential(20 * np.exp(-score)),
        event=np.ones(n),
        clinical=pd.DataFrame({"age": score}),
    )


def test_arms_and_the_floor_are_scored_on_the_same_folds():
    assert NO_PRIVACY.evaluation == EvaluationRelease(release="internal")
    arms = [PrivateArm("together"), PrivateArm("local", 8.0), PrivateArm("alone", 0.1)]
    found = compare_private_arms(small_scenario(), small_cohort(), arms, clip=1.0)
    assert list(found.wide("c_index").columns.sort_values()) == sorted(
        ["together-none", "local-8", "alone-0.1", FLOOR]
    )
    assert len(found.wide("c_index")) == 2
    assert found.mean("together-none", "c_index") > 0.65
    assert found.mean(FLOOR, "c_index") > 0.65
    assert found.mean("together-none", "response_auc") > found.mean("alone-0.1", "response_auc")
