"""Baselines beside a federated model: figures of their own, and a difference that is paired."""

import numpy as np
import pandas as pd
import pytest

from common.commands.cli_output import Output
from common.study.study import Study
from simulations.arms.baselines import train_baselines
from simulations.cohorts.cohort import Cohort
from simulations.engines.consortium_run import run_in_process
from simulations.engines.memory_sites import memory_agents


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    study = Study.model_validate(
        {
            "study_id": "baselines",
            "endpoints": {"response": {"positive": "yes"}, "survival": {}},
            "features": {"table": {"modality": "clinical", "dim": 3}},
            "model": {"name": "linear"},
            "training": {"rounds": 5, "nominal_patients": 200, "server": {"lr": 0.1}},
            "privacy": {"mode": "none", "evaluation": {"release": "internal"}},
            "sites": [{"site_id": s} for s in "abc"],
        }
    )
    generator = np.random.default_rng(0)
    n = 420
    x = generator.normal(size=(n, 3)).astype(np.float32)
    death, censor = generator.exponential(40 * np.exp(-x[:, 0])), generator.uniform(10, 90, n)
    cohort = Cohort(
        name="test",
        patient_ids=[f"p{i:04d}" for i in range(n)],
        hospital=generator.choice(["a", "b", "c"], n),
        specs=dict(study.features),
        features={"table": [row[None] for row in x]},
        response=(generator.uniform(size=n) < 1 / (1 + np.exp(-2 * x[:, 1]))).astype(float),
        time_months=np.minimum(death, censor),
        event=(death <= censor).astype(float),
        clinical=pd.DataFrame({"noise": generator.normal(size=n)}),
    )
    train, test = cohort.take(np.arange(220)), cohort.take(np.arange(220, n))
    work = tmp_path_factory.mktemp("baselines")
    for site in "abc":  # the same patients are held out in every run of this test
        private = work / "sites" / site / "private"
        private.mkdir(parents=True)
        (private / "split.key").write_text(bytes(range(32)).hex())
    agents = memory_agents(study, train.by_hospital(), work / "sites")
    quiet = Output(json_mode=True)
    result = run_in_process(study, agents, work / "run", output=quiet)
    return train_baselines(study, result.arrays, train, test, work / "alone", output=quiet)


def test_every_baseline_carries_a_paired_difference_with_its_interval(trained):
    assert [baseline.name for baseline in trained] == ["pooled", "local_only", "clinical_floor"]
    for baseline in trained:
        for name in ("c_index", "response_auc"):
            found = baseline.differences[name].difference
            assert found.ci_low <= found.value <= found.ci_high, (baseline.name, name)


def test_a_floor_of_pure_noise_is_beaten_and_the_pooled_model_is_not(trained):
    by_name = {baseline.name: baseline for baseline in trained}
    floor = by_name["clinical_floor"].differences["response_auc"]
    assert floor.difference.ci_low > 0
    assert floor.p_value < 0.01
    pooled = by_name["pooled"].differences["c_index"].difference
    assert pooled.ci_low < 0.03
    assert abs(pooled.value) < 0.1
