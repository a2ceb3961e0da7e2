import numpy as np
import pandas as pd
import pytest

from simulations.benchmarks.cohorts import synthetic_oracle, tcga_by_hospital
from simulations.benchmarks.cohorts.synthetic_oracle import Ranked
from simulations.benchmarks.parts.paired_bootstrap import PairedRanks, response_pairs
from simulations.benchmarks.parts.synthetic_trial import ARMS
from simulations.comparison.comparison import compare_arms
from simulations.scenario.scenario_run import ScenarioResult


def ranked(noise, seed=0, n=600):
    """Scores that are the truth plus noise of a size a model."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    response = (rng.random(n) < 1 / (1 + np.exp(-2 * truth))).astype(float)
    scores = {"oracle": truth, "full oracle": truth}
    scores |= {arm: truth + noise.get(arm, 3.0) * rng.normal(size=n) for arm in ARMS}
    site = rng.choice(["a", "b"], n)
    pairs = response_pairs(response)
    return Ranked(
        PairedRanks(pairs, scores, site, draws=200, seed=seed),
        PairedRanks(pairs.inside(site), scores, site, draws=200, seed=seed),
    )


def held(noise, seeds=(0,)):
    found = list(synthetic_oracle._metric_checks("AUC", [ranked(noise, seed) for seed in seeds]))
    return {check.what.split(",")[0]: check for check in found}


def test_a_good_model_holds_all():
    checks = held({"fused": 0.1, "private": 1.0, "linear": 0.5})
    assert len(checks) == 7
    assert all(check.holds for check in checks.values())


def test_a_model_far_from_the_oracle_fails():
    checks = held({"fused": 1.5})
    assert not checks["response AUC: oracle minus fused"].holds


def test_a_modality_as_good_as_all_fails():
    checks = held({"fused": 0.1, "genomics": 0.1})
    assert not checks["response AUC: fused minus genomics alone"].holds
    assert checks["response AUC: fused minus clinical alone"].holds


def test_the_worst_seed_decides():
    good, bad = {"fused": 0.1}, {"fused": 1.5}
    found = list(
        synthetic_oracle._metric_checks("AUC", [ranked(good, 0), ranked(bad, 1), ranked(good, 2)])
    )
    assert not found[0].holds


def comparison(differences):
    scenario = tcga_by_hospital.restricted(tcga_by_hospital.FULL.scenario("tcga_luad"))
    rng = np.random.default_rng(0)
    rows = []
    for seed in scenario.seeds:
        for fold in range(5):
            base = rng.normal(0.68, 0.03)
            for arm in ("pooled", "federated", "fedavg", "clinical_floor"):
                value = base + differences.get(arm, 0.0) + 0.001 * rng.normal()
                rows.append(
                    {"arm": arm, "seed": seed, "fold": fold, "c_index": value}
                    | {"response_auc": value, "c_index_within": value, "response_auc_within": value}
                )
    cells = pd.DataFrame(rows)
    table = compare_arms(cells, "pooled", test_share=0.25)
    return ScenarioResult(scenario, pd.DataFrame(), cells, table, {"a": 30, "b": 40}, ())


@pytest.mark.parametrize(("fedavg", "holds"), [(-0.045, True), (-0.055, False), (0.05, True)])
def test_only_a_loss_against_pooled_counts(fedavg, holds):
    made = comparison({"fedavg": fedavg, "clinical_floor": -0.1})
    federated, averaged, floor = tcga_by_hospital.comparison_checks(made)
    assert federated.holds
    assert averaged.holds is holds
    assert averaged.value == pytest.approx(-fedavg, abs=0.002)
    assert floor.value == pytest.approx(0.58, abs=0.02)
    assert "Cox floor 0.5" in federated.note
    assert "2 hospitals" in federated.what


def test_seeds_are_not_those_the_settings_were_chosen_on():
    assert not {0, 1} & set(tcga_by_hospital.FULL.seeds)
    assert not {101, 102} & set(synthetic_oracle.FULL.seeds)
