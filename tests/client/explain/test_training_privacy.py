"""What a patient's report says of the training is what study and ledger say."""

from pathlib import Path

import pytest
from small_site import site_study

from client.explain.explain import training_privacy
from client.site.approval import make_approval
from client.site.identity import create_identity
from client.site.site_folder import load_policy, record_consent
from common.ledger.ledger import Ledger, LedgerBudgets, SpendEntry
from common.privacy.accounting import training_sigma

STUDY = site_study("linear")
ROUNDS = 10


def spend(policy, study, rounds: int) -> None:
    sigma = training_sigma(6.0, policy.delta, ROUNDS)
    ledger = Ledger(policy.ledger, policy.site_id, LedgerBudgets.from_policy(policy))
    for number in range(1, rounds + 1):
        entry = SpendEntry(
            study_digest=study.digest(),
            run_id="run-1",
            round=number,
            model_digest="b2" * 32,
            partition="train",
            purpose="train",
            mechanism="gaussian",
            parameters={"sigma": sigma},
            mu_squared=1 / sigma**2,
        )
        ledger.commit(ledger.reserve(entry), "c3" * 32)


@pytest.fixture
def policy(tmp_path: Path):
    (tmp_path / "site.yaml").write_text("site_id: hospital-a\n")
    found = load_policy(tmp_path)
    ceilings = {"announced": None, "epsilon": None, "fallback_epsilon": None}
    create_identity(found.identity_key)
    record_consent(found, make_approval(found, STUDY, **ceilings))
    return load_policy(tmp_path)


def test_what_this_hospital_spent_is_read_from_its_ledger(policy):
    spend(policy, STUDY, ROUNDS)
    promise, spent = training_privacy(STUDY, policy)
    assert "mode local: epsilon at most 6 at delta 1e-05" in promise
    assert "epsilon 6 at delta 1e-05 spent in 10 releases" in spent


def test_a_half_finished_training_spent_less(policy):
    spend(policy, STUDY, 5)
    spent = training_privacy(STUDY, policy)[1]
    assert "in 5 releases" in spent
    assert float(spent.split("epsilon ")[1].split()[0]) < 6


def test_spending_on_another_study_is_not_counted(policy):
    spend(policy, STUDY, 1)
    other = site_study("linear", version=2)
    assert "holds no training of this study" in training_privacy(other, policy)[1]


def test_a_damaged_ledger_is_said_and_does_not_hide_the_prediction(policy):
    spend(policy, STUDY, 2)
    policy.ledger.write_bytes(policy.ledger.read_bytes()[40:])
    assert "cannot be read (TB420)" in training_privacy(STUDY, policy)[1]


def test_without_privacy_nothing_is_promised(policy):
    public = site_study("linear", privacy={"mode": "none"})
    assert training_privacy(public, policy) == ["Trained without differential privacy (mode none)."]
