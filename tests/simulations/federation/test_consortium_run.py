"""Whole runs over the in-process Grid: real agents, real server, real Flower apps."""

import json
import os
import sys

import numpy as np
import pytest
import torch
from tiny_consortium import tiny_agents, tiny_datasets, tiny_study

from client.data.split import is_held_out
from common.commands.cli_output import Output
from common.errors import ErrorCode, RunError
from common.metrics.summaries.summary import summarise
from common.models.base.build import build_model
from common.models.base.parameters import to_arrays
from common.models.losses.multitask import patient_loss
from common.protocol.evaluation_request import FEDERATED
from server.run.rounds import run_study
from simulations.engines.consortium_run import run_in_process

KEY = bytes(range(32))


def agents(study, folder, **options):
    """Agents whose train/test split is the same in every test."""
    for entry in study.sites:
        private = folder / entry.site_id / "private"
        private.mkdir(parents=True, exist_ok=True)
        (private / "split.key").write_text(KEY.hex())
    return tiny_agents(study, folder, **options)


def run(study, folder, **options):
    output = Output(json_mode=True)
    made = options.pop("agents", None) or agents(study, folder / "sites")
    return run_in_process(study, made, folder / "run", output=output, **options)


def pooled_gradient_descent(study, datasets):
    """The same optimisation on all training patients in one place, in float64."""
    plan = study.training
    model = build_model(study).double()
    named = dict(model.named_parameters())
    start = {name: p.detach().clone() for name, p in named.items()}
    for _ in range(plan.rounds):
        model.zero_grad()
        for dataset in datasets.values():
            rows = [
                i
                for i, patient in enumerate(dataset.patient_ids)
                if not is_held_out(patient, KEY, plan.test_fraction)
            ]
            batch = dataset.batch(rows)
            batch.tokens = {name: t.double() for name, t in batch.tokens.items()}
            (patient_loss(model(batch), batch, study).sum() / plan.nominal_patients).backward()
        with torch.no_grad():
            for parameter in named.values():
                decay = plan.weight_decay if parameter.ndim > 1 else 0.0
                parameter -= plan.server.lr * (parameter.grad + decay * parameter)
    moved = max(float((p.detach() - start[n]).abs().max()) for n, p in named.items())
    assert moved > 0.05
    return {name: p.detach().numpy() for name, p in named.items()}


def test_federated_gradient_sums_equal_pooled_gradient_descent(tmp_path):
    study = tiny_study(training={"rounds": 6, "average_last": 0.0, "weight_decay": 0.05})
    result = run(study, tmp_path)
    pooled = pooled_gradient_descent(study, tiny_datasets(study))
    assert set(result.arrays) == set(pooled)
    for name, array in result.arrays.items():
        np.testing.assert_allclose(array, pooled[name], atol=1e-5, err_msg=name)


def test_site_without_radiology_moves_everything_but_its_block(tmp_path):
    study = tiny_study(
        sites=[{"site_id": "site-c"}], quorum={"min_sites": 1, "round_timeout_s": 60}
    )
    made = agents(study, tmp_path / "sites", datasets=tiny_datasets(study))
    result = run(study, tmp_path, agents=made)
    start = to_arrays(build_model(study))
    for name, array in result.arrays.items():
        same = array.tobytes() == start[name].tobytes()
        assert same == name.startswith("radiology"), name
    assert result.sites["site-c"].modalities == ["pathology", "clinical"]


@pytest.mark.parametrize(
    ("local", "server"),
    [
        ({"kind": "epochs", "epochs": 2, "lr": 0.01}, {"name": "average"}),
        ({"kind": "epochs", "proximal_mu": 0.1, "lr": 0.01}, {"name": "average"}),
        ({"kind": "epochs", "lr": 0.01}, {"name": "yogi", "lr": 0.05}),
        ({"kind": "epochs", "lr": 0.01}, {"name": "adagrad", "lr": 0.05}),
        ({"kind": "gradient_sum"}, {"name": "adam", "lr": 0.05}),
    ],
    ids=["FedAvg", "FedProx", "FedYogi", "FedAdagrad", "server Adam"],
)
def test_every_rule_learns(local, server, tmp_path):
    study = tiny_study(training={"rounds": 8, "local": local, "server": server})
    history = run(study, tmp_path).history
    assert [record.round for record in history] == list(range(1, 9))
    assert history[-1].loss < history[0].loss
    assert all(record.sites == ["site-a", "site-b", "site-c"] for record in history)


def test_tables_become_metrics(tmp_path):
    result = run(tiny_study(), tmp_path)
    evaluation = result.evaluations[FEDERATED]
    metrics = summarise(evaluation.tables, evaluation.grid).metrics
    assert metrics["response_auc"].value is not None
    assert metrics["c_index"].value is not None
    assert result.privacy.mode == "none"
    counts = result.sites["site-a"].cohort
    assert (counts.listed, counts.usable) == (30, 30)
    assert counts.train + counts.held_out == 30
    assert 0 < counts.present["radiology"] < 30 == counts.present["pathology"]
    assert 0 < counts.observed["response"] < 30


def test_finished_run_is_read_back_without_asking_anybody(tmp_path):
    study = tiny_study()
    first = run(study, tmp_path)

    class Nobody:
        def site_ids(self):
            return ()

        def exchange(self, *_args, **_options):
            raise AssertionError("a finished run asks nobody")

    second = run_study(study, Nobody(), tmp_path / "run", output=Output(json_mode=True))
    assert second.model_digest == first.model_digest
    assert second.history == first.history
    tables = {s: t.arrays for s, t in first.evaluations[FEDERATED].tables.items()}
    for site_id, again in second.evaluations[FEDERATED].tables.items():
        for name, array in again.arrays.items():
            np.testing.assert_array_equal(array, tables[site_id][name])


def test_folder_of_another_study_is_refused(tmp_path):
    run(tiny_study(), tmp_path)
    other = tiny_study(title="another")
    with pytest.raises(RunError) as caught:
        run(other, tmp_path, agents=agents(other, tmp_path / "other"))
    assert caught.value.code == ErrorCode.STUDY_DIGEST


def test_too_few_sites_fail_with_every_reason_named(tmp_path):
    study, other = tiny_study(), tiny_study(title="another")
    strangers = agents(other, tmp_path / "sites")  # they approved another study
    with pytest.raises(RunError) as caught:
        run(study, tmp_path, agents=strangers)
    assert caught.value.code == ErrorCode.QUORUM
    assert str(caught.value).count(ErrorCode.NOT_APPROVED) == 3
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    assert state["phase"] == "failed"
    assert state["reason"].startswith(ErrorCode.QUORUM)


def test_private_run_spends_what_it_says(tmp_path):
    study = tiny_study(
        privacy={"mode": "local", "epsilon": 8.0, "evaluation": {"release": "dp"}},
        training={"server": {"name": "adam", "lr": 0.02}},
    )
    result = run(study, tmp_path)
    assert set(result.privacy.epsilon_spent) == {"site-a", "site-b", "site-c"}
    for spent in result.privacy.epsilon_spent.values():
        assert spent == pytest.approx(8.0, rel=2e-3)
        assert spent <= 8.0
    for spent in result.privacy.evaluation_epsilon_spent.values():
        assert spent == pytest.approx(6.0)
    for record in result.history:
        assert record.sites == ["site-a", "site-b", "site-c"]
        assert record.loss is None
    assert all(site.cohort is None for site in result.sites.values())
    assert result.privacy.release == "dp"


def test_one_hospital_that_forbids_exact_tables_makes_all_noisy(tmp_path):
    study = tiny_study()
    made = agents(study, tmp_path / "sites")
    policy = made["site-b"]._policy.model_copy(update={"allow_internal_evaluation": False})
    made["site-b"] = type(made["site-b"])(policy, made["site-b"]._run.provider)
    result = run(study, tmp_path, agents=made)
    assert result.evaluations[FEDERATED].grid.release == "dp"
    assert set(result.privacy.evaluation_epsilon_spent.values()) == {6.0}


# Ray leaves processes behind when it shuts down.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_ray_engine_gives_the_same_model(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # Ray's workers import the agents
    study = tiny_study()
    here = run(study, tmp_path / "local")
    on_ray = run(study, tmp_path / "ray", engine="ray")
    assert on_ray.model_digest == here.model_digest
    first, second = (r.evaluations[FEDERATED].tables for r in (here, on_ray))
    for site_id, tables in first.items():
        for name, array in tables.arrays.items():
            np.testing.assert_array_equal(array, second[site_id].arrays[name])
