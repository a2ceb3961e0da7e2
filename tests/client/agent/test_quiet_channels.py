"""What a hospital says besides its noised sums: refusals, counts, times."""

import math

import pytest
from tiny_consortium import InMemory, tiny_datasets, tiny_policy, tiny_study

from client.agent import answer_times
from client.agent.dispatch import answer
from client.agent.site_agent import SiteAgent
from client.agent.socket_call import AgentRefusalError
from client.data.dataset import PatientDataset
from common.cohort.manifest import read_manifest
from common.contract import canonical_json
from common.models.base.build import build_model
from common.models.base.parameters import to_arrays
from common.protocol.protocol import EvaluateRequest, HandshakeRequest, StatusRequest, TrainRequest
from common.secure_sum.messages import AdvertiseRequest
from common.trust.provenance import code_digest
from common.wire import arrays_digest
from simulations.engines.memory_sites import with_identities

STATUS = StatusRequest()
DP = {"epsilon": 8.0, "evaluation": {"release": "dp"}}


def handshake(study):
    return HandshakeRequest(
        run_id="run-1",
        study_json=canonical_json(study.model_dump(mode="json")),
        study_digest=study.digest(),
        code_digest=code_digest(),
    )


def train_request(study, number=1):
    arrays = to_arrays(build_model(study))
    request = TrainRequest(run_id="run-1", round=number, model_digest=arrays_digest(arrays))
    return request.model_copy(update={"arrays": arrays})


def agent_of(study, folder, n_patients, **rules):
    data = tiny_datasets(study)["site-a"].select(range(n_patients))
    return SiteAgent(tiny_policy(study, "site-a", folder, **rules), InMemory(data))


@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_the_handshake_of_a_private_study_does_not_depend_on_the_cohorts_size(mode, tmp_path):
    """Not even below the hospital's own floor, and not even without a single patient."""
    study = tiny_study(privacy={"mode": mode, **DP})
    if mode == "distributed":
        study = with_identities(study, tmp_path)
    replies = set()
    for n_patients in (0, 1, 19, 20, 30):
        agent = agent_of(study, tmp_path, n_patients, minimum_cohort=20)
        replies.add(agent.handshake(handshake(study)).encode())
    assert len(replies) == 1


def test_an_empty_cohort_trains_and_evaluates_with_noise_alone(tmp_path):
    study = tiny_study(privacy={"mode": "local", **DP})
    agent = agent_of(study, tmp_path, 0)
    assert agent.handshake(handshake(study)).accepted
    reply = agent.train(train_request(study))
    assert all(array.any() for array in reply.arrays.values())
    request = train_request(study)
    tables = agent.evaluate(
        EvaluateRequest(
            run_id="run-1",
            round=0,
            model_digest=request.model_digest,
            release="dp",
        ).model_copy(update={"arrays": request.arrays})
    )
    assert tables.arrays


def test_a_store_without_a_usable_patient_is_empty_not_refused(tmp_path):
    study = tiny_study(privacy={"mode": "local", **DP})
    file = tmp_path / "manifest.csv"
    file.write_text("patient_id,response,time_months,event\np-1,1,12,1\n")
    found = PatientDataset.from_store(
        study, read_manifest(file), tmp_path / "features", may_be_empty=True
    )
    assert len(found) == 0


class Clock:
    """A clock that only sleeping and computing move."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(answer_times.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(answer_times.time, "sleep", self.advance)

    def advance(self, seconds):
        self.now += seconds


def fail_late(clock, seconds):
    with answer_times.fixed_times(5.0):
        clock.advance(seconds)
        raise ZeroDivisionError


@pytest.mark.parametrize(("computing", "leaves"), [(0.0, 5.0), (4.9, 5.0), (5.1, 10.0)])
def test_an_answer_or_refusal_leaves_at_a_multiple_of_the_time(monkeypatch, computing, leaves):
    clock = Clock(monkeypatch)
    with answer_times.fixed_times(5.0):
        clock.advance(computing)
    assert math.isclose(clock.now, 100.0 + leaves)
    with pytest.raises(ZeroDivisionError):
        fail_late(clock, computing)
    assert math.isclose(clock.now, 100.0 + 2 * leaves)


def test_handshake_training_and_evaluation_follow_the_studys_times(tmp_path, monkeypatch):
    study = tiny_study(privacy={"mode": "local", **DP, "answer_seconds": 7.0})
    agent = agent_of(study, tmp_path, 30)
    clock = Clock(monkeypatch)
    agent.handshake(handshake(study))
    assert clock.now == 107.0
    agent.train(train_request(study))
    assert clock.now == 114.0
    agent = agent_of(study, tmp_path, 30)  # restarted: the run is opened again
    agent.train(train_request(study, 2))
    assert clock.now == 121.0
    with pytest.raises(AgentRefusalError):
        answer(agent, "train", *train_request(study, 99).encode())
    assert clock.now == 128.0


def test_what_the_agent_is_doing_says_no_more_than_its_answer(tmp_path, monkeypatch):
    study = tiny_study(privacy={"mode": "local", **DP, "answer_seconds": 7.0})
    agent = agent_of(study, tmp_path, 30)
    states = []
    monkeypatch.setattr(answer_times.time, "sleep", lambda _: states.append(agent.status(STATUS)))
    agent.handshake(handshake(study))
    agent.train(train_request(study))
    assert [reply.state for reply in states] == ["idle", "training"]


def test_messages_about_keys_read_no_patient(tmp_path):
    study = with_identities(tiny_study(privacy={"mode": "distributed", **DP}), tmp_path)
    agent = agent_of(study, tmp_path, 30)
    assert agent.handshake(handshake(study)).accepted

    def unread(_):
        raise AssertionError("patients were read")

    again = SiteAgent(tiny_policy(study, "site-a", tmp_path), unread)
    request = AdvertiseRequest(run_id="run-1", session=1, study_digest=study.digest())
    assert again.advertise_keys(request).advert.site_id == "site-a"


def test_without_times_the_digest_is_that_of_before_and_nobody_waits(tmp_path, monkeypatch):
    study = tiny_study(privacy={"mode": "local", **DP})
    assert "answer_seconds" not in canonical_json(study.model_dump(mode="json"))
    clock = Clock(monkeypatch)
    agent = agent_of(study, tmp_path, 30)
    agent.handshake(handshake(study))
    agent.train(train_request(study))
    assert clock.now == 100.0
