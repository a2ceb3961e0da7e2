"""What a hospital refuses before any patient is read, and that only codes leave."""

import gc
import json
import logging
import sys

import pytest
from tiny_consortium import InMemory, tiny_datasets, tiny_policy, tiny_study

from client.agent.dispatch import answer
from client.agent.site_agent import SiteAgent
from client.agent.socket_call import AgentRefusalError
from common.contract import canonical_json
from common.errors import ErrorCode
from common.models.base.build import build_model
from common.models.base.parameters import to_arrays
from common.protocol.protocol import HandshakeRequest, TrainRequest
from common.trust.provenance import code_digest
from common.wire import arrays_digest
from simulations.engines.memory_sites import with_identities

SECRET = "patient Erika Mustermann"


class Unread:
    """A provider that must not be asked."""

    def __call__(self, study):
        raise AssertionError(f"{SECRET} was read")


def handshake(study, **changes):
    facts = {
        "run_id": "run-1",
        "study_json": canonical_json(study.model_dump(mode="json")),
        "study_digest": study.digest(),
        "code_digest": code_digest(),
    }
    return HandshakeRequest.model_validate(facts | changes)


LOCAL = {"mode": "local", "epsilon": 8.0, "evaluation": {"release": "dp"}}
RANDOM = {"name": "frozen_trunk", "options": {"trunk": "abmil", "trunk_options": {"width": 8}}}
REFUSALS = {
    "protocol": ({}, {}, {"protocol_version": 99}, ErrorCode.PROTOCOL),
    "code": ({}, {}, {"code_digest": "0" * 64}, ErrorCode.CODE_DIGEST),
    "altered study": ({}, {}, {"study_digest": "0" * 64}, ErrorCode.STUDY_DIGEST),
    "unreadable study": ({}, {}, {"study_json": '{"study_id": "x"}'}, ErrorCode.STUDY_DIGEST),
    "not approved": ({}, {"approvals": []}, {}, ErrorCode.NOT_APPROVED),
    "not on the roster": ({}, {"site_id": "site-z"}, {}, ErrorCode.POLICY),
    "mode": ({}, {"allowed_modes": ["distributed"]}, {}, ErrorCode.POLICY),
    "delta": (LOCAL, {"delta": 1e-7}, {}, ErrorCode.POLICY),
    "training budget": (LOCAL, {"lifetime_epsilon": 7.9}, {}, ErrorCode.BUDGET),
    "evaluation budget": (LOCAL, {"lifetime_evaluation_epsilon": 5.9}, {}, ErrorCode.BUDGET),
    "ledger of yesterday": ({}, {}, {"ledger_head": "f" * 64}, ErrorCode.LEDGER_ROLLBACK),
}


def test_a_random_trunk_is_refused_by_the_hospital_itself(tmp_path):
    """Before data is read; and accepted in words that its consent covers."""
    study = tiny_study(privacy=LOCAL, model=RANDOM)
    agent = SiteAgent(tiny_policy(study, "site-a", tmp_path), Unread())
    assert agent.handshake(handshake(study)).refusal_code == ErrorCode.WEIGHTS_ORIGIN
    weights = {"accept_origin": "a fixed random projection of public features"}
    study = tiny_study(privacy=LOCAL, model=RANDOM, weights=weights)
    provider = InMemory(tiny_datasets(study)["site-a"])
    agent = SiteAgent(tiny_policy(study, "site-a", tmp_path), provider)
    assert agent.handshake(handshake(study)).accepted


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_before_data_is_read(name, tmp_path):
    privacy, policy, request, code = REFUSALS[name]
    study = tiny_study(privacy=privacy) if privacy else tiny_study()
    site_id = policy.get("site_id", "site-a")
    rules = {key: value for key, value in policy.items() if key != "site_id"}
    agent = SiteAgent(tiny_policy(study, site_id, tmp_path, **rules), Unread())
    reply = agent.handshake(handshake(study, **request))
    assert not reply.accepted
    assert reply.refusal_code == code
    assert not reply.modalities


def test_ceiling_of_the_approval(tmp_path):
    study = tiny_study(privacy=LOCAL)
    approval = {"study_digest": study.digest(), "epsilon_ceiling": 7.0}
    agent = SiteAgent(tiny_policy(study, "site-a", tmp_path, approvals=[approval]), Unread())
    assert agent.handshake(handshake(study)).refusal_code == ErrorCode.POLICY


def test_cohort_below_the_floor_without_privacy(tmp_path):
    study = tiny_study()
    provider = InMemory(tiny_datasets(study)["site-a"])
    agent = SiteAgent(tiny_policy(study, "site-a", tmp_path, minimum_cohort=31), provider)
    assert agent.handshake(handshake(study)).refusal_code == ErrorCode.DATA


def test_accepts_and_tells_modalities(tmp_path):
    study = tiny_study()
    agent = SiteAgent(
        tiny_policy(study, "site-c", tmp_path), InMemory(tiny_datasets(study)["site-c"])
    )
    reply = agent.handshake(handshake(study))
    assert reply.accepted
    assert reply.modalities == ["pathology", "clinical"]
    assert reply.release == "internal"


@pytest.mark.parametrize("mode", ["local", "distributed"])
@pytest.mark.parametrize("declared", [None, ["clinical"]])
def test_modalities_of_a_private_study_do_not_depend_on_a_patient(declared, mode, tmp_path):
    """One patient with a volume more or less: nothing of the handshake may change."""
    study = tiny_study(privacy={"mode": mode, "evaluation": {"release": "dp"}})
    if mode == "distributed":
        study = with_identities(study, tmp_path)
    said = set()
    for site_id in ("site-a", "site-c"):  # site-c has fewer modalities than site-a
        data = InMemory(tiny_datasets(study)[site_id])
        agent = SiteAgent(tiny_policy(study, "site-b", tmp_path, modalities=declared), data)
        reply = agent.handshake(handshake(study))
        assert reply.accepted
        said.add(tuple(reply.modalities))
    assert said == {tuple(declared or study.modalities)}


def test_release_is_noisy_unless_the_hospital_opts_in(tmp_path):
    study = tiny_study()
    policy = tiny_policy(study, "site-a", tmp_path, allow_internal_evaluation=False)
    agent = SiteAgent(policy, InMemory(tiny_datasets(study)["site-a"]))
    assert agent.handshake(handshake(study)).release == "dp"


def train_request(study, **changes):
    arrays = to_arrays(build_model(study))
    facts = {"run_id": "run-1", "round": 1, "model_digest": arrays_digest(arrays)}
    request = TrainRequest.model_validate(facts | changes)
    return request.model_copy(update={"arrays": arrays})


def test_run_is_unknown_without_a_handshake(tmp_path):
    study = tiny_study()
    agent = SiteAgent(tiny_policy(study, "site-a", tmp_path), Unread())
    with pytest.raises(AgentRefusalError) as caught:
        answer(agent, "train", *train_request(study).encode())
    assert caught.value.code == ErrorCode.PROTOCOL


def test_restarted_agent_goes_on_without_a_handshake(tmp_path):
    study = tiny_study()
    policy, provider = tiny_policy(study, "site-a", tmp_path), tiny_datasets(study)["site-a"]
    assert SiteAgent(policy, InMemory(provider)).handshake(handshake(study)).accepted
    reply = SiteAgent(policy, InMemory(provider)).train(train_request(study))
    assert reply.blocks == ["clinical", "heads", "pathology", "radiology"]


def test_withdrawn_approval_stops_a_running_study(tmp_path):
    study = tiny_study()
    provider = InMemory(tiny_datasets(study)["site-a"])
    SiteAgent(tiny_policy(study, "site-a", tmp_path), provider).handshake(handshake(study))
    agent = SiteAgent(tiny_policy(study, "site-a", tmp_path, approvals=[]), Unread())
    with pytest.raises(AgentRefusalError) as caught:
        answer(agent, "train", *train_request(study).encode())
    assert caught.value.code == ErrorCode.NOT_APPROVED


def test_consent_counts_as_soon_as_it_is_given_or_withdrawn(tmp_path):
    study = tiny_study()
    agreed = tiny_policy(study, "site-a", tmp_path)
    none = agreed.model_copy(update={"approvals": []})
    now = [none]
    provider = InMemory(tiny_datasets(study)["site-a"])
    agent = SiteAgent(none, provider, reload=lambda: now[0])
    assert agent.handshake(handshake(study)).refusal_code == ErrorCode.NOT_APPROVED
    now[0] = agreed
    assert agent.handshake(handshake(study)).accepted
    assert agent.train(train_request(study)).round == 1
    now[0] = none
    with pytest.raises(AgentRefusalError) as caught:
        answer(agent, "train", *train_request(study, round=2).encode())
    assert caught.value.code == ErrorCode.NOT_APPROVED


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ({"allowed_modes": ["local"]}, ErrorCode.POLICY),
        ({"minimum_cohort": 10_000}, ErrorCode.DATA),
        ({"allowed_modes": ["none"], "minimum_cohort": 1}, None),
    ],
    ids=["mode", "cohort", "looser"],
)
def test_a_stricter_rule_holds_before_the_next_answer(rule, code, tmp_path):
    study = tiny_study()
    policy = tiny_policy(study, "site-a", tmp_path)
    now = [policy]
    provider = InMemory(tiny_datasets(study)["site-a"])
    agent = SiteAgent(policy, provider, reload=lambda: now[0])
    assert agent.handshake(handshake(study)).accepted
    now[0] = policy.model_copy(update=rule)
    if code is None:
        assert agent.train(train_request(study)).round == 1
        return
    with pytest.raises(AgentRefusalError) as caught:
        answer(agent, "train", *train_request(study).encode())
    assert caught.value.code == code


def test_exact_tables_stop_as_soon_as_the_hospital_says_so(tmp_path):
    study = tiny_study()
    assert study.privacy.evaluation.release == "internal"
    policy = tiny_policy(study, "site-a", tmp_path, allow_internal_evaluation=True)
    now = [policy]
    provider = InMemory(tiny_datasets(study)["site-a"])
    agent = SiteAgent(policy, provider, reload=lambda: now[0])
    assert agent.handshake(handshake(study)).release == "internal"
    now[0] = policy.model_copy(update={"allow_internal_evaluation": False})
    assert agent.handshake(handshake(study)).release == "dp"


def consent(study, epsilon):
    ceilings = {"epsilon_ceiling": epsilon, "evaluation_epsilon_ceiling": 9.0}
    return {"study_digest": study.digest(), **ceilings}


def test_run_id_cannot_be_given_another_study(tmp_path):
    first, second = tiny_study(), tiny_study(title="another")
    approvals = [
        {"study_digest": s.digest(), "epsilon_ceiling": 9, "evaluation_epsilon_ceiling": 9}
        for s in (first, second)
    ]
    policy = tiny_policy(first, "site-a", tmp_path, approvals=approvals)
    agent = SiteAgent(policy, InMemory(tiny_datasets(first)["site-a"]))
    assert agent.handshake(handshake(first)).accepted
    assert agent.handshake(handshake(second)).refusal_code == ErrorCode.STUDY_DIGEST


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"round": 5}, ErrorCode.PROTOCOL),
        ({"model_digest": "0" * 64}, ErrorCode.PAYLOAD),
    ],
    ids=["round beyond the plan", "model is not its digest"],
)
def test_train_request_outside_the_plan(changes, code, tmp_path):
    study = tiny_study()
    agent = SiteAgent(
        tiny_policy(study, "site-a", tmp_path), InMemory(tiny_datasets(study)["site-a"])
    )
    agent.handshake(handshake(study))
    with pytest.raises(AgentRefusalError) as caught:
        answer(agent, "train", *train_request(study, **changes).encode())
    assert caught.value.code == code


class TestOnlyCodesLeave:
    """Error texts name patients; they stay in the hospital's own log."""

    def refusal(self, agent, method="status", header="{}"):
        with pytest.raises(AgentRefusalError) as caught:
            answer(agent, method, header, b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
        return caught.value

    class Broken:
        def status(self, request):
            raise KeyError(SECRET)

    def test_any_exception(self, caplog):
        with caplog.at_level(logging.ERROR):
            refusal = self.refusal(self.Broken())
        assert refusal.args == (ErrorCode.INTERNAL,)
        assert refusal.__cause__ is None
        assert refusal.__context__ is None
        assert SECRET in caplog.text

    def test_unknown_method(self):
        assert self.refusal(self.Broken(), method="__class__").code == ErrorCode.PROTOCOL

    @pytest.mark.parametrize("header", ["", "{", json.dumps({"run_id": 3}), '{"evil": 1}'])
    def test_header_that_breaks_the_declaration(self, header):
        assert self.refusal(self.Broken(), header=header).code == ErrorCode.PAYLOAD


def test_patients_never_change_sides(tmp_path):
    """A second study with another held-out share would make some patients pay on both sides."""
    first, second = (
        tiny_study(privacy=LOCAL, training={"rounds": 2, "test_fraction": share})
        for share in (0.25, 0.5)
    )
    same = first.model_copy(update={"study_id": "same-share"})
    approvals = [consent(study, 8.0) for study in (first, second, same)]
    policy = tiny_policy(first, "site-a", tmp_path, approvals=approvals, lifetime_epsilon=30.0)
    agent = SiteAgent(policy, InMemory(tiny_datasets(first)["site-a"]))
    assert agent.handshake(handshake(first)).accepted
    assert agent.handshake(handshake(second, run_id="run-2")).refusal_code == ErrorCode.POLICY
    assert agent.handshake(handshake(same, run_id="run-3")).accepted


def refuse(agent, payload):
    try:
        answer(agent, "train", "{}", payload)
    except AgentRefusalError as refusal:
        return refusal.code


def test_a_refused_requests_bytes_do_not_stay_in_memory(tmp_path):
    """They would stay until the next collection of circles: eight large ones fill the memory."""
    study = tiny_study()
    agent = SiteAgent(tiny_policy(study, "site-a", tmp_path), Unread())
    payload = bytes(1000)
    logging.disable(logging.CRITICAL)  # pytest keeps every record, with the error it names
    gc.disable()
    try:
        before = sys.getrefcount(payload)
        assert refuse(agent, payload) == ErrorCode.PAYLOAD
        assert sys.getrefcount(payload) == before
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)
