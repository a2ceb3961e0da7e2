"""A ledger as a frame: what counts, with the epsilon that the ledger itself composes."""

import pytest

from common.errors import LedgerError
from common.ledger.ledger import Ledger, LedgerBudgets, SpendEntry
from common.ledger.ledger_budget import Cap
from common.ledger.ledger_frame import read_ledger_frame
from common.privacy.accounting import pure_mu, training_sigma

SIGMA = training_sigma(3.0, 1e-5, 4)


def spend(number, **changes):
    fields = {
        "study_digest": "a1" * 32,
        "run_id": "run-1",
        "round": number,
        "model_digest": "c3" * 32,
        "partition": "train",
        "purpose": "train",
        "mechanism": "gaussian",
        "mu_squared": 1 / SIGMA**2,
    }
    return SpendEntry.model_validate(fields | changes)


@pytest.fixture
def ledger(tmp_path):
    budgets = LedgerBudgets(hospital={"train": Cap(10.0, 1e-5), "held_out": Cap(12.0)}, study=None)
    return Ledger(tmp_path / "ledger.jsonl", "hospital-a", budgets)


def test_rows_are_the_releases_that_count_with_the_ledgers_own_epsilon(ledger, tmp_path):
    seen = []
    for number in range(1, 4):
        ledger.commit(ledger.reserve(spend(number)), "d4" * 32)
        seen.append(ledger.epsilon("a1" * 32, "train", 1e-5))
    abandoned = ledger.reserve(spend(4))
    ledger.release(abandoned.sequence, by="M. Roe", reason="power cut", computed=False)
    tables = {"partition": "held_out", "purpose": "evaluate", "mechanism": "geometric"}
    ledger.reserve(spend(0, **tables, mu_squared=pure_mu(2.0) ** 2, pure_epsilon=2.0))
    exact = {"partition": "held_out", "purpose": "count", "mechanism": "none", "mu_squared": 0}
    ledger.commit(ledger.reserve(spend(0, **exact)), "d4" * 32)
    frame = read_ledger_frame(tmp_path / "ledger.jsonl")
    assert list(frame["purpose"]) == ["train"] * 3 + ["evaluate", "count"]
    assert list(frame["state"]) == ["committed"] * 3 + ["open", "committed"]
    assert list(frame["epsilon"])[:3] == seen
    assert list(frame["epsilon"])[3:] == pytest.approx([2.0, 2.0])
    assert frame["time"].is_monotonic_increasing
    assert frame["time"].dt.tz is not None
    lines = (tmp_path / "ledger.jsonl").read_text().splitlines()
    for line, purpose in zip(frame["line"], frame["purpose"], strict=True):
        assert f'"purpose":"{purpose}"' in lines[line - 1]


def test_a_ledger_that_was_changed_is_not_shown(ledger, tmp_path):
    ledger.reserve(spend(1))
    path = tmp_path / "ledger.jsonl"
    path.write_text(path.read_text().replace('"round":1', '"round":2'))
    with pytest.raises(LedgerError):
        read_ledger_frame(path)
    with pytest.raises(LedgerError, match="no ledger"):
        read_ledger_frame(tmp_path / "none.jsonl")
