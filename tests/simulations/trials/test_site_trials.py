import numpy as np
import pytest
from tiny_consortium import DIMS, InMemory, tiny_policy, tiny_study

from client.agent.site_agent import SiteAgent
from client.data.dataset import PatientDataset
from common.commands.cli_output import Output
from simulations.benchmarks.cohorts import steering
from simulations.benchmarks.cohorts.robust_rules import LIES, RULES, order_checks
from simulations.engines.circumstances import Circumstances, Poison
from simulations.engines.consortium_run import run_in_process
from simulations.engines.unreliable_site import UnreliableSite
from simulations.trials.site_trials import SiteTrial, train_by_site

SITES = ("site-a", "site-b", "site-c", "site-d")


def study_of(rule):
    return tiny_study(
        sites=[{"site_id": site} for site in SITES],
        training={
            "rounds": 5,
            "test_fraction": 0.0,
            "server": {"name": "adam", "lr": 0.05},
            "aggregation": {"rule": rule},
        },
    )


def patients(study):
    rng = np.random.default_rng(2)
    n = 80
    bags = {k: [rng.normal(size=d).astype(np.float32) for _ in range(n)] for k, d in DIMS.items()}
    time, event = rng.exponential(20, n) + 0.1, rng.integers(0, 2, n).astype(float)
    ids = [f"p{i:02d}" for i in range(n)]
    return PatientDataset.from_arrays(
        study, ids, bags, rng.integers(0, 2, n).astype(float), time, event
    )


@pytest.mark.parametrize("rule", ["mean", "median", "centred_clipping"])
@pytest.mark.parametrize("kind", ["sign_flip", "nan"])
def test_without_transport_a_lie_does_what_it_does_in_a_whole_run(rule, kind, tmp_path):
    study = study_of(rule)
    everyone = patients(study)
    rows = {site: np.arange(i, 80, 4) for i, site in enumerate(SITES)}
    poison = Poison(kind=kind, factor=5)
    met = Circumstances(poison=poison)
    agents = {
        site: UnreliableSite(
            SiteAgent(tiny_policy(study, site, tmp_path), InMemory(everyone.select(own))),
            site,
            SITES,
            met,
            site == "site-b",
            0,
        )
        for site, own in rows.items()
    }
    whole = run_in_process(study, agents, tmp_path / "run", output=Output(True)).arrays
    found = train_by_site(everyone, [SiteTrial(study, rows, "site-b", poison)])[0]
    for name, value in whole.items():
        np.testing.assert_allclose(found[name], value, atol=2e-5)


def test_a_rule_that_falls_with_the_mean_fails_the_benchmark():
    table = {(rule, lie): 0.75 for rule in RULES for lie in LIES}
    table |= {("mean", "sign flip x5"): 0.5, ("mean", "x100"): 0.65}
    assert all(check.holds for check in order_checks("", table))
    fallen = table | {("median", "sign flip x5"): 0.55}
    failed = [check.what for check in order_checks("", fallen) if not check.holds]
    assert len(failed) == 1
    assert "median" in failed[0]


def grouped(groups, rule="mean"):
    return tiny_study(
        sites=[{"site_id": f"site-{place}", "nominal_patients": 10} for place in range(9)],
        privacy={"mode": "distributed", "epsilon": 100.0, "groups": groups},
        training={
            "rounds": 5,
            "test_fraction": 0.0,
            "nominal_patients": 90,
            "server": {"name": "sgd", "lr": 0.5},
            "aggregation": {"rule": rule},
        },
    )


def trained(study, **lies):
    everyone = patients(study)
    rows = {f"site-{place}": np.arange(place, 72, 9) for place in range(9)}
    arrays = train_by_site(everyone, [SiteTrial(study, rows, "site-4", **lies)])[0]
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


def test_groups_change_nothing_but_the_noise_and_take_the_strength_from_a_lie(monkeypatch):
    monkeypatch.setattr(
        "simulations.trials.site_trials.skellam", lambda size, _v: np.zeros(size, np.int64)
    )
    honest = trained(grouped(1))
    np.testing.assert_allclose(trained(grouped(3)), honest, atol=1e-6)
    lost = np.linalg.norm(trained(grouped(1), steer=1.0) - honest)
    assert lost > 1
    assert np.linalg.norm(trained(grouped(3, "median"), steer=1.0) - honest) < 0.2 * lost


@pytest.mark.parametrize("bounded", [True, False])
def test_a_sum_that_is_too_long_is_no_part_of_the_model(bounded):
    moved = trained(grouped(1), steer=9.0, bounded=bounded)
    start = trained(grouped(1), steer=9.0)
    assert np.array_equal(moved, start) == bounded


def test_a_lie_that_costs_more_than_the_bound_fails_the_benchmark():
    table = dict.fromkeys(steering.ATTACKS, 0.70)
    table |= {"one sum, unbounded": 0.5, "one sum, loud": 0.55}
    assert all(check.holds for check in steering.loss_checks("", table))
    for arm, value in {"groups, loud": 0.67, "one sum, loud": 0.69}.items():
        failed = [c.what for c in steering.loss_checks("", table | {arm: value}) if not c.holds]
        assert len(failed) == 1
        assert arm in failed[0]
