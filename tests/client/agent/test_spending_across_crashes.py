"""One release is paid once and answered with the same bytes, wherever a crash comes."""

import shutil

import numpy as np
import pytest
from scipy import stats
from tiny_consortium import InMemory, tiny_datasets, tiny_policy, tiny_study

from client.agent.site_agent import SiteAgent
from client.site.sealed_replies import SealedReplies
from common.contract import canonical_json
from common.errors import BudgetError, ErrorCode
from common.ledger.ledger import Ledger, LedgerBudgets
from common.models.base.build import build_model
from common.models.base.parameters import to_arrays
from common.protocol.protocol import EvaluateRequest, HandshakeRequest, TrainRequest
from common.study.private_round import sigma_of
from common.trust.provenance import code_digest
from common.wire import arrays_digest

STUDY = tiny_study(privacy={"mode": "local", "epsilon": 8.0, "evaluation": {"release": "dp"}})
DATA = tiny_datasets(STUDY)


class Crash(BaseException):
    """Like kill -9: nothing catches it."""


@pytest.fixture
def policy(tmp_path):
    return tiny_policy(STUDY, "site-a", tmp_path)


def agent(policy):
    made = SiteAgent(policy, InMemory(DATA["site-a"]))
    assert made.handshake(handshake_request("run-1")).accepted
    return made


def handshake_request(run_id):
    return HandshakeRequest(
        run_id=run_id,
        study_json=canonical_json(STUDY.model_dump(mode="json")),
        study_digest=STUDY.digest(),
        code_digest=code_digest(),
    )


def train_request(number=1, shift=0.0):
    arrays = {n: a + np.float32(shift) for n, a in to_arrays(build_model(STUDY)).items()}
    request = TrainRequest(run_id="run-1", round=number, model_digest=arrays_digest(arrays))
    return request.model_copy(update={"arrays": arrays})


def evaluate_request():
    arrays = to_arrays(build_model(STUDY))
    request = EvaluateRequest(run_id="run-1", round=0, model_digest=arrays_digest(arrays))
    return request.model_copy(update={"arrays": arrays})


def ledger(policy):
    return Ledger(policy.ledger, policy.site_id, LedgerBudgets.from_policy(policy))


CRASHES = {
    "after reserve": ("client.agent.training.clipped_gradient_sum", False),
    "before store": ("client.site.sealed_replies.SealedReplies.store", False),
    "after store": ("common.ledger.ledger.Ledger.commit", True),
}


@pytest.mark.parametrize("point", CRASHES)
def test_crash_and_the_same_request_again(point, policy, monkeypatch):
    target, was_stored = CRASHES[point]

    def crash(*_args, **_kwargs):
        raise Crash

    with monkeypatch.context() as patched:
        running = agent(policy)
        patched.setattr(target, crash)
        with pytest.raises(Crash):
            running.train(train_request())
    request = train_request()
    key = ("train", "run-1", 1, request.model_digest)
    sealed = SealedReplies(policy.state / "replies").load(key)
    assert (sealed is not None) == was_stored
    reply = agent(policy).train(request)
    if sealed is not None:
        assert reply.encode() == sealed
    (reservation,) = ledger(policy).reservations()
    assert reservation.state == "committed"
    assert ledger(policy).spent(STUDY.digest(), "train") == pytest.approx(sigma_of(STUDY) ** -2)


def test_repeated_requests_get_the_same_bytes(policy):
    first = agent(policy).train(train_request()).encode()
    assert agent(policy).train(train_request()).encode() == first
    table = agent(policy).evaluate(evaluate_request()).encode()
    assert agent(policy).evaluate(evaluate_request()).encode() == table
    assert len(ledger(policy).reservations()) == 2


def test_another_model_for_a_round_that_was_answered_is_refused(policy):
    running = agent(policy)
    running.train(train_request())
    with pytest.raises(BudgetError) as caught:
        running.train(train_request(shift=0.5))
    assert caught.value.code == ErrorCode.ALREADY_SPENT


def test_lost_reply_is_never_computed_again(policy, monkeypatch):
    running = agent(policy)
    running.train(train_request())
    shutil.rmtree(policy.state / "replies")

    def read(*_args, **_kwargs):
        raise AssertionError("patients were read for a release that was refused")

    monkeypatch.setattr("client.agent.training.clipped_gradient_sum", read)
    with pytest.raises(BudgetError) as caught:
        running.train(train_request())
    assert caught.value.code == ErrorCode.ALREADY_SPENT


def test_a_whole_run_spends_exactly_its_epsilon(policy):
    running = agent(policy)
    replies = [running.train(train_request(number)) for number in range(1, 5)]
    assert replies[-1].epsilon_spent == pytest.approx(8.0, rel=2e-3)
    assert replies[-1].epsilon_spent <= 8.0


def test_second_run_above_the_ceiling_is_refused_at_the_handshake(tmp_path):
    approvals = [
        {
            "study_digest": STUDY.digest(),
            "epsilon_ceiling": 8.0,
            "evaluation_epsilon_ceiling": 100.0,
        }
    ]
    policy = tiny_policy(STUDY, "site-a", tmp_path, approvals=approvals)
    running = agent(policy)
    running.train(train_request())
    assert running.handshake(handshake_request("run-2")).refusal_code == ErrorCode.BUDGET
    assert agent(policy)  # the run that holds the budget is still accepted


def test_evaluations_stop_at_the_budget_of_held_out_patients(tmp_path):
    running = agent(tiny_policy(STUDY, "site-a", tmp_path, lifetime_evaluation_epsilon=13.0))
    for run_id in ("run-2", "run-3"):  # each would fit alone
        assert running.handshake(handshake_request(run_id)).accepted
    running.evaluate(evaluate_request())
    again = evaluate_request().model_copy(update={"run_id": "run-2"})
    assert running.evaluate(again).evaluation_epsilon_spent == pytest.approx(12.0)
    with pytest.raises(BudgetError):
        running.evaluate(again.model_copy(update={"run_id": "run-3"}))


def test_private_update_is_the_clipped_sum_plus_designed_noise(policy, tmp_path):
    """Residuals of many coordinates over rounds and restarts: right spread, right shape."""
    from client.data.split import load_or_create_split_key, sides
    from client.training.private_gradient import clipped_gradient_sum
    from common.models.base.parameters import load_arrays

    residuals = []
    for repeat in range(12):
        own = tiny_policy(STUDY, "site-a", tmp_path / str(repeat))
        own.split_key_file.parent.mkdir(parents=True)
        own.split_key_file.write_text("ab" * 32)
        running = agent(own)
        key, patients = load_or_create_split_key(own.split_key_file), DATA["site-a"]
        train = patients.select(sides(patients.patient_ids, key, 0.25)[0])
        request = train_request()
        reply = running.train(request)
        model = build_model(STUDY)
        load_arrays(model, request.arrays)
        exact = clipped_gradient_sum(model, train, STUDY, device="cpu", clip=0.3)
        residuals += [(reply.arrays[n] - exact.arrays[n]).ravel() for n in reply.arrays]
    noise = np.concatenate(residuals) / (0.3 * sigma_of(STUDY))
    low, high = stats.chi2.ppf([1e-5, 1 - 1e-5], noise.size) / noise.size
    assert low < np.mean(noise**2) < high
    assert stats.kstest(noise, "norm").pvalue > 1e-4
    assert not reply.weights
    assert reply.loss is None
