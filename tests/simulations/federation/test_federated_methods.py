"""SCAFFOLD, local parameters, personal models, weight transfer, robust rules: whole runs."""

import numpy as np
import pytest
import torch
from tiny_consortium import tiny_agents, tiny_datasets, tiny_study

from client.training.train import train_epochs
from common.commands.cli_output import Output
from common.models.base.build import build_model
from common.models.base.parameters import load_arrays, to_arrays
from common.protocol.evaluation_request import FEDERATED, PERSONAL
from simulations.engines.consortium_run import run_in_process

EPOCHS = {"kind": "epochs", "epochs": 2, "batch_size": 8, "optimizer": "sgd", "lr": 0.1}


def study_of(**training):
    local = EPOCHS | training.pop("local", {})
    plan = {"rounds": 3, "weight_decay": 0.0, "average_last": 0.0, "test_fraction": 0.0}
    plan["server"] = {"name": "average"}
    return tiny_study(training={**plan, "local": local, **training})


def run(study, folder, agents=None):
    agents = agents or tiny_agents(study, folder / "sites")
    return run_in_process(study, agents, folder / "run", output=Output(json_mode=True))


class Scaffold:
    """Algorithm 1, option II, of the paper, written out over the same local steps."""

    def __init__(self, study):
        self.study, self.data = study, tiny_datasets(study)
        self.model = build_model(study)
        self.x = {n: a.astype(np.float64) for n, a in to_arrays(self.model).items()}
        self.c = {n: np.zeros_like(a) for n, a in self.x.items()}
        self.own = {s: {n: np.zeros_like(a) for n, a in self.x.items()} for s in self.data}

    def round(self, number, away=()):
        moved = dict.fromkeys(self.x, 0.0)
        weight = dict.fromkeys(self.x, 0.0)
        change = dict.fromkeys(self.x, 0.0)
        for site, patients in self.data.items():
            if site in away:
                continue
            start = {n: a.astype(np.float32) for n, a in self.x.items()}
            load_arrays(self.model, start)
            correction = {n: (self.c[n] - self.own[site][n]).astype(np.float32) for n in self.c}
            train_epochs(
                self.model,
                patients,
                self.study,
                round=number,
                device=torch.device("cpu"),
                correction=correction,
            )
            after = to_arrays(self.model)
            k = 2 * -(-len(patients) // 8)
            for n in self.x:
                if site == "site-c" and n.startswith("radiology"):
                    continue  # it has no radiology and sends nothing for it
                delta = after[n].astype(np.float64) - start[n]
                own = self.own[site][n] - self.c[n] - delta / (k * self.study.training.local.lr)
                change[n] = change[n] + (own - self.own[site][n]) / 3
                self.own[site][n] = own
                n_here = float(len(patients))
                if n.startswith("radiology"):
                    n_here = float(patients.present("radiology").sum())
                moved[n] = moved[n] + n_here * delta
                weight[n] += n_here
        self.x = {n: self.x[n] + moved[n] / weight[n] for n in self.x}
        self.c = {n: self.c[n] + change[n] for n in self.c}


def test_scaffold_is_the_published_algorithm(tmp_path):
    study = study_of(local={"control_variates": True})
    found = run(study, tmp_path).arrays
    oracle = Scaffold(study)
    for number in (1, 2, 3):
        oracle.round(number)
    for name, value in found.items():
        np.testing.assert_allclose(value, oracle.x[name], atol=2e-5, err_msg=name)
    plain = run(study_of(), tmp_path / "plain").arrays
    assert max(np.abs(plain[n] - found[n]).max() for n in found) > 1e-3


class Lost:
    """The site trains, and its reply is refused by the server in some rounds."""

    def __init__(self, agent, rounds):
        self._agent, self._rounds = agent, rounds

    def __getattr__(self, name):
        return getattr(self._agent, name)

    def train(self, request):
        reply = self._agent.train(request)
        return reply.model_copy(update={"round": 99}) if request.round in self._rounds else reply


def test_control_variate_of_an_uncounted_round_is_undone(tmp_path):
    study = study_of(local={"control_variates": True})
    agents = dict(tiny_agents(study, tmp_path / "sites"))
    agents["site-b"] = Lost(agents["site-b"], {2})
    result = run(study, tmp_path, agents)
    assert [len(record.sites) for record in result.history] == [3, 2, 3]
    oracle = Scaffold(study)
    oracle.round(1)
    oracle.round(2, away={"site-b"})
    oracle.round(3)
    for name, value in result.arrays.items():
        np.testing.assert_allclose(value, oracle.x[name], atol=2e-5, err_msg=name)


def test_local_parameters_never_leave_and_differ_between_sites(tmp_path):
    study = study_of(stay_local=["heads.*_bias"])
    agents = tiny_agents(study, tmp_path / "sites")
    sent = []

    class Listening(Lost):
        def train(self, request):
            reply = self._agent.train(request)
            sent.append(set(reply.arrays))
            return reply

    result = run(study, tmp_path, {s: Listening(a, ()) for s, a in agents.items()})
    assert not any("heads.hazard_bias" in names for names in sent)
    assert any("clinical.clinical.weight" in names for names in sent)
    start = to_arrays(build_model(study))
    np.testing.assert_array_equal(result.arrays["heads.hazard_bias"], start["heads.hazard_bias"])
    own = [
        agent._run.opened.memory.latest("stay_local")["heads.hazard_bias"]
        for agent in agents.values()
    ]
    assert np.abs(own[0] - own[1]).max() > 1e-3
    assert np.abs(own[0] - start["heads.hazard_bias"]).max() > 1e-3
    assert not np.allclose(
        result.arrays["clinical.clinical.weight"], start["clinical.clinical.weight"]
    )


@pytest.mark.parametrize("kind", ["ditto", "fine_tune"])
def test_personal_models_leave_the_global_run_alone_and_are_evaluated_beside_it(kind, tmp_path):
    own = EPOCHS | {"epochs": 4, "proximal_mu": 0.1}
    plain_study = study_of(test_fraction=0.3)
    plain = run(plain_study, tmp_path / "plain", tiny_agents(plain_study, tmp_path / "sites"))
    study = study_of(personal={"kind": kind, "local": own}, test_fraction=0.3)
    result = run(study, tmp_path / "own", tiny_agents(study, tmp_path / "sites"))
    assert result.model_digest == plain.model_digest
    assert sorted(result.evaluations) == [FEDERATED, PERSONAL]
    loss = {
        label: found.summary().metrics["survival_nll"].value
        for label, found in result.evaluations.items()
    }
    assert loss[PERSONAL] != pytest.approx(loss[FEDERATED])


def test_ditto_stays_near_the_global_model_when_pulled_hard(tmp_path):
    # the pull stops at |v - w| <= |gradient| / mu; lr * mu stays below 1
    spread = {}
    for mu in (0.0, 9.0):
        own = EPOCHS | {"epochs": 8, "proximal_mu": mu}
        study = study_of(personal={"kind": "ditto", "local": own})
        agents = tiny_agents(study, tmp_path / f"{mu}" / "sites")
        result = run(study, tmp_path / f"{mu}", agents)
        kept = agents["site-a"]._run.opened.memory.latest("personal")
        spread[mu] = max(np.abs(kept[n] - result.arrays[n]).max() for n in kept)
    assert spread[9.0] < 0.3 * spread[0.0]


def test_cyclic_transfer_hands_one_sites_model_on(tmp_path):
    study = study_of(schedule="cyclic", rounds=4)
    result = run(study, tmp_path)
    turns = [record.sites for record in result.history]
    assert turns == [["site-a"], ["site-b"], ["site-c"], ["site-a"]]
    model = build_model(study)
    data = tiny_datasets(study)
    for number, site in enumerate(("site-a", "site-b", "site-c", "site-a"), 1):
        before = to_arrays(model)
        train_epochs(model, data[site], study, round=number, device=next(model.parameters()).device)
        if site == "site-c":
            load_arrays(
                model,
                to_arrays(model) | {n: a for n, a in before.items() if n.startswith("radiology")},
            )
    for name, value in to_arrays(model).items():
        np.testing.assert_allclose(result.arrays[name], value, atol=1e-6)


def test_absent_site_is_passed_over_in_the_cycle(tmp_path):
    study = study_of(schedule="cyclic")
    agents = dict(tiny_agents(study, tmp_path / "sites"))
    agents["site-b"] = Lost(agents["site-b"], {2})
    history = run(study, tmp_path, agents).history
    assert [record.sites for record in history] == [["site-a"], ["site-c"], ["site-c"]]


class Flipped(Lost):
    def train(self, request):
        reply = self._agent.train(request)
        return reply.model_copy(update={"arrays": {n: -5 * a for n, a in reply.arrays.items()}})


def gradient_study(rule):
    sites = [{"site_id": f"site-{letter}"} for letter in "abcdef"]
    plan = {"rounds": 8, "server": {"name": "adam", "lr": 0.05}, "aggregation": {"rule": rule}}
    return tiny_study(training=plan, sites=sites)


def test_site_that_pulls_against_the_rest_is_named_once(tmp_path, capsys):
    study = gradient_study("centred_clipping")
    agents = dict(tiny_agents(study, tmp_path / "sites"))
    agents["site-b"] = Flipped(agents["site-b"], ())
    result = run_in_process(study, agents, tmp_path / "run", output=Output())
    cosines = result.history[-1].facts["cosine_with_rest"]
    assert cosines["site-b"] < -0.3 < min(v for s, v in cosines.items() if s != "site-b")
    told = "".join(capsys.readouterr())
    assert told.count("oppose those") == 1
    assert "site-b" in told


@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "centred_clipping", "krum"])
def test_a_rule_keeps_the_model_where_honest_sites_put_it(rule, tmp_path):
    honest = run(gradient_study("mean"), tmp_path / "honest").arrays
    distance = {}
    for name in ("mean", rule):
        study = gradient_study(name)
        agents = dict(tiny_agents(study, tmp_path / name / "sites"))
        agents["site-b"] = Flipped(agents["site-b"], ())
        found = run(study, tmp_path / name, agents).arrays
        distance[name] = np.sqrt(sum(np.square(found[n] - honest[n]).sum() for n in honest))
    assert distance[rule] < 0.7 * distance["mean"]


def test_interrupted_scaffold_run_goes_on_to_the_same_bytes(tmp_path):
    study = study_of(local={"control_variates": True}, rounds=5)
    whole = run(study, tmp_path / "whole")
    agents = dict(tiny_agents(study, tmp_path / "cut" / "sites"))

    class PowerCut(Lost):
        def train(self, request):
            reply = self._agent.train(request)
            if request.round == 3 and self._rounds:
                self._rounds.clear()
                raise KeyboardInterrupt
            return reply

    agents["site-c"] = PowerCut(agents["site-c"], {3})
    with pytest.raises(KeyboardInterrupt):
        run(study, tmp_path / "cut", agents)
    assert run(study, tmp_path / "cut", agents).model_digest == whole.model_digest
