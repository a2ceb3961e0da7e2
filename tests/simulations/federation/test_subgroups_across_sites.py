"""Subgroups through real agents: exact ones equal the pooled rows, noisy ones are paid for."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from client.data.split import is_held_out
from common.commands.cli_output import Output
from common.ledger.ledger_file import read_ledger
from common.ledger.recompose import recompose
from common.models.base.build import build_model
from common.models.base.parameters import load_arrays
from common.protocol.evaluation_request import FEDERATED
from common.study.study import Study
from simulations.cohorts.cohort import Cohort
from simulations.engines.consortium_run import run_in_process
from simulations.engines.memory_sites import memory_agents, with_identities
from simulations.trials.exact_evaluation import predict_dataset

KEY = bytes(range(32))
SUBGROUPS = {
    "sex": {"column": "clinical_female", "levels": {"female": [1], "male": [0]}},
    "age": {"column": "clinical_age", "bands": [50, 65]},
}


def make_study(mode="none", **evaluation):
    return Study.model_validate(
        {
            "study_id": "subgroups",
            "endpoints": {"response": {"positive": "yes"}, "survival": {}},
            "features": {"table": {"modality": "clinical", "dim": 3}},
            "model": {"name": "linear"},
            "training": {"rounds": 3, "nominal_patients": 300, "test_fraction": 0.5},
            "privacy": {"mode": mode, "epsilon": 8.0, "evaluation": evaluation},
            "subgroups": SUBGROUPS,
            "sites": [{"site_id": s} for s in "abcd"],
        }
    )


def make_cohort(study, n=480):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(n, 3)).astype(np.float32)
    death, censor = generator.exponential(40 * np.exp(-x[:, 0])), generator.uniform(10, 90, n)
    female = generator.integers(0, 2, n).astype(float)
    female[:20] = np.nan
    return Cohort(
        name="test",
        patient_ids=[f"p{i:04d}" for i in range(n)],
        hospital=generator.choice(list("abcd"), n),
        specs=dict(study.features),
        features={"table": [row[None] for row in x]},
        response=(generator.uniform(size=n) < 1 / (1 + np.exp(-2 * x[:, 1]))).astype(float),
        time_months=np.minimum(death, censor),
        event=(death <= censor).astype(float),
        clinical=pd.DataFrame({"female": female, "age": generator.uniform(30, 90, n)}),
    )


def run(study, folder):
    cohort = make_cohort(study)
    groups = cohort.by_hospital()
    for site in groups:
        (folder / "sites" / site / "private").mkdir(parents=True, exist_ok=True)
        (folder / "sites" / site / "private" / "split.key").write_text(KEY.hex())
    agents = memory_agents(study, groups, folder / "sites")
    result = run_in_process(study, agents, folder / "run", output=Output(json_mode=True))
    return result, cohort


def test_exact_subgroups_of_all_sites_equal_the_pooled_patients(tmp_path):
    study = make_study(release="internal")
    result, cohort = run(study, tmp_path)
    found = result.evaluations[FEDERATED].summary().subgroups
    tested = cohort.take(np.flatnonzero([is_held_out(p, KEY, 0.5) for p in cohort.patient_ids]))
    model = build_model(study)
    load_arrays(model, result.arrays)
    rows = predict_dataset(model, tested.dataset(study), study)
    for name, levels in SUBGROUPS.items():
        counted = 0
        assert set(found[name].levels) == set(
            levels.get("levels", ("below 50", "50 to below 65", "65 and over"))
        )
        for index, (level, metrics) in enumerate(found[name].levels.items()):
            own = rows.select(rows.subgroups[name] == index)
            pooled = roc_auc_score(own.response, own.response_prob)
            auc = metrics["response_auc"]
            assert abs(auc.value - pooled) <= auc.error_bound + 1e-12, (name, level)
            assert found[name].n_patients[level]["response_auc"] == len(own)
            counted += len(own)
        assert counted == len(rows) - (rows.subgroups[name] == -1).sum()


def test_noisy_subgroups_pass_the_secure_sum_and_stand_in_the_ledger(tmp_path):
    study = make_study(
        "distributed", release="dp", survival_epsilon=4, response_epsilon=2, subgroup_epsilon=6
    )
    study = with_identities(study, tmp_path / "sites")
    result, _ = run(study, tmp_path)
    evaluation = result.evaluations[FEDERATED]
    tables = [name for name in evaluation.noise if name.startswith("subgroup_")]
    assert len(tables) == 4
    assert all(evaluation.noise[name].epsilon == pytest.approx(1.5) for name in tables)
    assert set(tables) <= set(next(iter(evaluation.tables.values())).arrays)
    female = evaluation.summary().subgroups["sex"].levels["female"]["response_auc"]
    assert female.noise_sd > 0
    for site in "abcd":
        ledger = read_ledger(tmp_path / "sites" / site / "private" / "ledger.jsonl")
        spent = [r.entry for r in ledger if r.entry and r.entry.partition == "held_out"]
        charged = {k: v for entry in spent for k, v in entry.parameters["epsilon"].items()}
        assert {name: charged[name] for name in tables} == dict.fromkeys(tables, 1.5)
        assert sum(charged.values()) == pytest.approx(4 + 2 + 6)
        assert sum(entry.pure_epsilon for entry in spent) == pytest.approx(12)
        assert 0 < result.privacy.evaluation_epsilon_spent[site] <= 12
        assert all(account.agree for account in recompose(ledger, 1e-5, where=site))
