"""Mode distributed over real agents: the sum is right, the budget exact, dropouts survived."""

import json

import numpy as np
import pytest
import torch
from masked_consortium import KEY, Flaky, make_agents, make_study, run, spends
from tiny_consortium import tiny_datasets, tiny_policy

from client.agent.site_agent import SiteAgent
from client.data.split import is_held_out
from common.errors import ErrorCode, RunError
from common.models.base.build import build_model
from common.models.losses.multitask import patient_loss
from common.privacy.noise import geometric_share, skellam
from common.protocol.evaluation_request import FEDERATED
from server.aggregate.contribution import FEDERATION
from simulations.engines.memory_sites import with_identities


def clipped_descent(study, datasets, clip):
    """Full-batch descent on clipped per-patient gradients of all training patients, pooled."""
    plan, model = study.training, build_model(study)
    named = dict(model.named_parameters())
    for _ in range(plan.rounds):
        total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in named.items()}
        for dataset in datasets.values():
            for i, patient in enumerate(dataset.patient_ids):
                if is_held_out(patient, KEY, plan.test_fraction):
                    continue
                batch = dataset.batch([i])
                loss = patient_loss(model(batch), batch, study).sum()
                grads = torch.autograd.grad(
                    loss, list(named.values()), allow_unused=True, materialize_grads=True
                )
                norm = torch.cat([g.reshape(-1).double() for g in grads]).norm()
                factor = min(1.0, clip / float(norm))
                for name, gradient in zip(named, grads, strict=True):
                    total[name] += factor * gradient.double()
        with torch.no_grad():
            for name, parameter in named.items():
                step = plan.server.lr * total[name] / plan.nominal_patients
                parameter.copy_((parameter.double() - step).float())
    return {name: p.detach().numpy() for name, p in named.items()}


def test_opened_sums_are_the_sums_of_clipped_gradients(tmp_path, monkeypatch):
    """With the noise taken out, training equals pooled clipped descent to the rounding."""
    monkeypatch.setattr(
        "common.privacy.integer_encoding.skellam", lambda n, _v: np.zeros(n, np.int64)
    )
    monkeypatch.setattr(
        "client.agent.evaluation.geometric_share", lambda s, _e, _n: np.zeros(s, np.int64)
    )
    study = make_study(tmp_path, 3, training={"average_last": 0.0})
    result = run(study, make_agents(study, tmp_path), tmp_path)
    pooled = clipped_descent(study, tiny_datasets(study), 0.3)
    for name, array in result.arrays.items():
        np.testing.assert_allclose(array, pooled[name], atol=1e-5, err_msg=name)
    evaluation = result.evaluations[FEDERATED]
    assert list(evaluation.tables) == [FEDERATION]
    held_out = sum(
        is_held_out(patient, KEY, 0.25)
        for dataset in tiny_datasets(study).values()
        for patient in dataset.patient_ids
    )
    assert evaluation.tables[FEDERATION].arrays["survival"].sum() == held_out


def test_each_site_adds_its_share_and_no_more(tmp_path, monkeypatch):
    drawn, cells = [], []

    def counted(size, variance):
        drawn.append(variance)
        return skellam(size, variance)

    def counted_cells(shape, epsilon, shares):
        cells.append(shares)
        return geometric_share(shape, epsilon, shares)

    monkeypatch.setattr("common.privacy.integer_encoding.skellam", counted)
    monkeypatch.setattr("client.agent.evaluation.geometric_share", counted_cells)
    study = make_study(tmp_path)
    result = run(study, make_agents(study, tmp_path), tmp_path)
    # n_min - t = 3 shares make the designed variance (sigma * (2^m + sqrt d))^2 up to 0.2 %.
    steps = 2.0 ** round(np.log2(np.sqrt(3 * drawn[0]) / result.privacy.sigma))
    assert np.sqrt(3 * drawn[0]) / (result.privacy.sigma * steps) == pytest.approx(1, abs=2e-3)
    assert len(drawn) == 4 * 5
    assert set(cells) == {3}
    assert result.privacy.fallback_epsilon > 8.0
    assert result.evaluations[FEDERATED].shares == pytest.approx(5 / 3)


PHASES = {
    "handshake": lambda method, _r: method == "handshake",
    "key advert": lambda method, _r: method == "advertise_keys",
    "key agreement": lambda method, _r: method == "agree_keys",
    "upload in round 2": lambda method, r: method == "train" and r.round == 2,
    "unmasking in round 2": lambda method, r: method == "unmask" and r.round == 2,
    "evaluation": lambda method, _r: method == "evaluate",
}


@pytest.mark.parametrize("phase", PHASES)
def test_one_lost_site_is_survived_in_every_phase(phase, tmp_path):
    study = make_study(tmp_path)
    agents = make_agents(study, tmp_path)
    agents["site-b"] = Flaky(agents["site-b"], PHASES[phase])
    result = run(study, agents, tmp_path)
    assert [record.round for record in result.history] == [1, 2, 3, 4]
    assert all(len(record.sites) >= 4 for record in result.history)
    assert len(result.history[1].sites) == (
        5 if phase in ("unmasking in round 2", "evaluation") else 4
    )
    for site_id in ("site-a", "site-c", "site-d", "site-e"):
        assert spends(study, site_id, tmp_path) == [1, 2, 3, 4]
        assert result.privacy.epsilon_spent[site_id] == pytest.approx(8.0, rel=2e-3)
    never = phase in ("handshake", "key advert", "key agreement")
    assert spends(study, "site-b", tmp_path) == ([] if never else _rounds_of(phase))


def _rounds_of(phase):
    return [1, 3, 4] if phase == "upload in round 2" else [1, 2, 3, 4]


@pytest.mark.parametrize("method", ["train", "unmask"])
def test_round_below_n_min_is_void_and_costs_its_spend(method, tmp_path):
    study = make_study(tmp_path, training={"average_last": 0.0})
    agents = make_agents(study, tmp_path)

    def fails(called, request):
        return called == method and request.round == 2

    for site_id in ("site-b", "site-c"):
        agents[site_id] = Flaky(agents[site_id], fails)
    result = run(study, agents, tmp_path)
    void = result.history[1]
    assert void.sites == []
    assert void.update_norm == 0.0
    assert "void" in void.facts
    assert {void.dropped["site-b"], void.dropped["site-c"]} <= {ErrorCode.INTERNAL, "silent"}
    assert [len(record.sites) for record in result.history] == [5, 0, 5, 5]
    assert spends(study, "site-a", tmp_path) == [1, 2, 3, 4]


def test_run_fails_after_three_void_rounds_in_a_row(tmp_path):
    study = make_study(tmp_path)
    agents = make_agents(study, tmp_path)
    for site_id in ("site-b", "site-c"):
        agents[site_id] = Flaky(agents[site_id], lambda method, _r: method == "train")
    with pytest.raises(RunError) as caught:
        run(study, agents, tmp_path)
    assert caught.value.code == ErrorCode.QUORUM
    assert spends(study, "site-a", tmp_path) == [1, 2, 3]


def test_site_that_lost_its_keys_is_back_after_one_round(tmp_path):
    study = make_study(tmp_path)
    agents = make_agents(study, tmp_path)
    honest = agents["site-b"]

    def forget(method, request):
        if method == "train" and request.round == 2:
            for path in (tmp_path / "sites/site-b/private/state/secure_sums").iterdir():
                path.unlink()
            honest._sums = None
        return False

    agents["site-b"] = Flaky(honest, forget)
    result = run(study, agents, tmp_path)
    assert [len(record.sites) for record in result.history] == [5, 4, 5, 5]
    stored = json.loads((tmp_path / "run" / "secure_sums.json").read_text())
    assert stored["session"] == 2


def test_late_site_joins_with_fresh_keys(tmp_path):
    study = make_study(tmp_path)
    agents = make_agents(study, tmp_path)
    rounds = []

    def absent_at_first(method, request):
        if method == "handshake":
            rounds.append(1)
            return len(rounds) <= 2
        return False

    agents["site-e"] = Flaky(agents["site-e"], absent_at_first)
    result = run(study, agents, tmp_path)
    assert [len(record.sites) for record in result.history] == [4, 5, 5, 5]


REFUSED = {
    "roster without keys": (lambda s: _without_key(s), {}, ErrorCode.POLICY),
    "fallback above the ceiling": (
        lambda s: s,
        {"fallback_epsilon_ceiling": 12.0},
        ErrorCode.POLICY,
    ),
}


def _without_key(study):
    sites = [entry.model_copy(update={"public_key": None}) for entry in study.sites]
    return study.model_copy(update={"sites": sites})


@pytest.mark.parametrize("name", REFUSED)
def test_study_is_refused(name, tmp_path):
    change, ceilings, code = REFUSED[name]
    study = change(make_study(tmp_path, 3))
    agents = make_agents(study, tmp_path)
    approval = {
        "study_digest": study.digest(),
        "epsilon_ceiling": 8.0,
        "evaluation_epsilon_ceiling": 20.0,
        **ceilings,
    }
    agents = {
        s: SiteAgent(
            tiny_policy(study, s, tmp_path / "sites", approvals=[approval]), a._run.provider
        )
        for s, a in agents.items()
    }
    with pytest.raises(RunError) as caught:
        run(study, agents, tmp_path)
    assert str(caught.value).count(code) == 3


def test_roster_with_another_key_for_a_hospital_is_not_believed(tmp_path):
    study = make_study(tmp_path)
    other = with_identities(study, tmp_path / "impostors")
    forged = [other.sites[0], *study.sites[1:]]
    study = study.model_copy(update={"sites": forged})
    agents = make_agents(study, tmp_path)
    result = run(study, agents, tmp_path)
    assert result.sites["site-a"].refusal_code == ErrorCode.UNPROVEN
    assert [len(record.sites) for record in result.history] == [4, 4, 4, 4]


def test_tables_of_one_site_cannot_be_had(tmp_path):
    """A server that asks for plain tables in mode distributed is refused."""
    study = make_study(tmp_path, 3)
    agents = make_agents(study, tmp_path)
    plain = []

    class Asks(Flaky):
        def __getattr__(self, method):
            def call(request):
                if method == "evaluate":
                    plain.append(request.sum_round)
                    request = request.model_copy(update={"sum_round": None})
                return getattr(self._agent, method)(request)

            return call

    agents["site-a"] = Asks(agents["site-a"], None)
    with pytest.raises(RunError) as caught:
        run(study, agents, tmp_path)
    assert plain[0] == 5
    assert f"site-a: {ErrorCode.SECURE_SUM}" in caught.value.why
