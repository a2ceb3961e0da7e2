import hashlib
import json
import multiprocessing
import threading
from pathlib import Path

import pytest
from unlimited_budgets import UNLIMITED

from common.contract import canonical_json
from common.errors import BudgetError, ErrorCode, LedgerError
from common.ledger.ledger import Ledger, LedgerBudgets, SpendEntry
from common.ledger.ledger_budget import Cap
from common.ledger.ledger_file import read_ledger, reconcile
from common.ledger.recompose import recompose
from common.privacy.accounting import (
    composed_epsilon,
    fallback_epsilon,
    gaussian_epsilon,
    gaussian_mu,
    pure_mu,
    training_sigma,
)
from common.study.site_policy import Approval, SitePolicy

STUDY, OTHER, MODEL, PAYLOAD = "a1" * 32, "b2" * 32, "c3" * 32, "d4" * 32
SIGMA = training_sigma(3.0, 1e-5, 10)


def training(round_number: int, **changes: object) -> SpendEntry:
    fields = {
        "study_digest": STUDY,
        "run_id": "run-1",
        "round": round_number,
        "model_digest": MODEL,
        "partition": "train",
        "purpose": "train",
        "mechanism": "skellam",
        "parameters": {"sigma": SIGMA},
        "mu_squared": 1 / SIGMA**2,
    }
    return SpendEntry.model_validate(fields | changes)


def evaluation(epsilon: float, **changes: object) -> SpendEntry:
    fields = {
        "partition": "held_out",
        "purpose": "evaluate",
        "mechanism": "geometric",
        "parameters": {"epsilon": epsilon},
        "mu_squared": pure_mu(epsilon) ** 2,
        "pure_epsilon": epsilon,
    }
    return training(0, **(fields | changes))


BUDGETS = LedgerBudgets(
    hospital={"train": Cap(10.0, 1e-5), "held_out": Cap(12.0)},
    study={STUDY: {"train": Cap(3.0, 1e-5)}, OTHER: {}},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "private" / "ledger.jsonl"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    return Ledger(path, "hospital-a", BUDGETS)


def test_ten_planned_rounds_fit_and_the_eleventh_does_not(ledger: Ledger) -> None:
    ledger.check_plan([training(n) for n in range(1, 11)])
    for number in range(1, 11):
        ledger.commit(ledger.reserve(training(number)), PAYLOAD)
    assert ledger.epsilon(STUDY, "train", 1e-5) == pytest.approx(3.0, rel=1e-9)
    assert ledger.epsilon(STUDY, "train", 1e-5) <= 3.0 * (1 + 1e-12)
    with pytest.raises(BudgetError, match="study budget") as caught:
        ledger.reserve(training(11))
    assert caught.value.code == ErrorCode.BUDGET
    assert "are left" in caught.value.why
    assert len(ledger.entries()) == 21  # the refusal wrote nothing


def test_a_plan_above_the_remainder_is_refused_before_it_starts(ledger: Ledger) -> None:
    with pytest.raises(BudgetError):
        ledger.check_plan([training(n) for n in range(1, 12)])
    assert ledger.spent(STUDY, "train") == 0
    for number in range(1, 6):
        ledger.reserve(training(number))
    ledger.check_plan([training(n) for n in range(1, 11)])  # five of them are paid for


def test_the_smallest_remainder_governs(path: Path) -> None:
    tight = LedgerBudgets(hospital={"train": Cap(1.0, 1e-5)}, study=BUDGETS.study)
    ledger = Ledger(path, "hospital-a", tight)
    ledger.reserve(training(1))
    with pytest.raises(BudgetError, match="hospital budget"):
        ledger.check_plan([training(number) for number in range(2, 11)])


def test_spends_of_all_studies_add_up_at_the_hospital(ledger: Ledger) -> None:
    ledger.reserve(training(1))
    ledger.reserve(training(1, study_digest=OTHER, run_id="run-2"))
    assert ledger.spent(None, "train") == pytest.approx(2 / SIGMA**2)
    assert ledger.spent(OTHER, "train") == pytest.approx(1 / SIGMA**2)


def test_held_out_patients_pay_for_evaluation_only(ledger: Ledger) -> None:
    ledger.reserve(training(1))
    assert ledger.epsilon(STUDY, "held_out", 1e-5) == 0
    for number in (1, 2):
        ledger.reserve(evaluation(6.0, run_id=f"run-{number}"))
    assert ledger.epsilon(STUDY, "held_out", 1e-5) == pytest.approx(12.0)
    with pytest.raises(BudgetError, match="held_out"):
        ledger.reserve(evaluation(0.1, run_id="run-3"))
    with pytest.raises(BudgetError) as caught:
        ledger.reserve(training(5, partition="held_out"))
    assert "pure epsilon" in caught.value.why


def test_a_release_from_all_patients_is_paid_by_each_set(path: Path) -> None:
    budgets = LedgerBudgets(
        hospital={
            p: Cap(gaussian_epsilon(1.0, 1e-5), 1e-5) for p in ("train", "held_out", "validation")
        }
    )
    ledger = Ledger(path, "hospital-a", budgets)
    ledger.reserve(evaluation(0.3, partition="all", purpose="count"))
    for part in ("train", "held_out", "validation"):
        assert ledger.spent(STUDY, part) == pytest.approx(pure_mu(0.3) ** 2)


def test_unapproved_study_and_unknown_partition_may_spend_nothing(ledger: Ledger) -> None:
    with pytest.raises(BudgetError, match="no budget"):
        ledger.reserve(training(1, study_digest="ee" * 32))
    with pytest.raises(BudgetError, match="no budget"):
        ledger.reserve(training(1, partition="validation"))


def test_the_same_request_costs_nothing_and_another_is_refused(ledger: Ledger) -> None:
    first = ledger.reserve(training(1))
    again = ledger.reserve(training(1))
    assert (again.sequence, again.resumed, first.resumed) == (first.sequence, True, False)
    ledger.commit(first, PAYLOAD)
    assert ledger.reserve(training(1)).payload_digest == PAYLOAD
    assert ledger.spent(STUDY, "train") == pytest.approx(1 / SIGMA**2)
    for other in (training(1, model_digest="ff" * 32), training(1, study_digest=OTHER)):
        with pytest.raises(BudgetError) as caught:
            ledger.reserve(other)
        assert caught.value.code == ErrorCode.ALREADY_SPENT
        with pytest.raises(BudgetError):
            ledger.check_plan([other])
    assert ledger.spent(None, "train") == pytest.approx(1 / SIGMA**2)


def test_one_payload_is_committed_for_a_reservation(ledger: Ledger) -> None:
    reservation = ledger.reserve(training(1))
    assert ledger.commit(reservation, PAYLOAD).state == "committed"
    assert ledger.commit(reservation, PAYLOAD).state == "committed"
    with pytest.raises(BudgetError) as caught:
        ledger.commit(reservation, "99" * 32)
    assert caught.value.code == ErrorCode.ALREADY_SPENT
    with pytest.raises(LedgerError):
        ledger.commit(reservation.model_copy(update={"sequence": 0}), PAYLOAD)


def test_open_reservation_counts_after_a_restart(path: Path, ledger: Ledger) -> None:
    ledger.reserve(training(1))
    reopened = Ledger(path, "hospital-a", BUDGETS)
    assert reopened.spent(STUDY, "train") == pytest.approx(1 / SIGMA**2)
    assert reopened.reservations()[0].state == "open"
    assert reopened.head == ledger.head


def test_administrator_releases_only_what_was_never_computed(ledger: Ledger) -> None:
    one, two = ledger.reserve(training(1)), ledger.reserve(training(2))
    ledger.commit(two, PAYLOAD)
    for sequence, computed in ((two.sequence, False), (one.sequence, True)):
        with pytest.raises(BudgetError):
            ledger.release(sequence, by="M. Roe", reason="power cut", computed=computed)
    ledger.release(one.sequence, by="M. Roe", reason="power cut", computed=False)
    assert ledger.spent(STUDY, "train") == pytest.approx(1 / SIGMA**2)
    assert ledger.entries()[-1].administrator.by == "M. Roe"
    assert not ledger.reserve(training(1)).resumed
    with pytest.raises(LedgerError):
        ledger.release(one.sequence, by="M. Roe", reason="again", computed=False)


def test_releases_without_noise_have_no_epsilon(ledger: Ledger) -> None:
    exact = training(0, mechanism="none", mu_squared=0.0, partition="held_out", parameters={})
    ledger.reserve(exact)
    assert ledger.epsilon(STUDY, "held_out", 1e-5) == 0
    with pytest.raises(ValueError, match="mu_squared"):
        training(0, mechanism="none")
    with pytest.raises(ValueError, match="mu_squared"):
        training(0, mu_squared=0.0)


def test_epsilon_takes_the_smaller_of_two_valid_bounds(path: Path) -> None:
    ledger = Ledger(path, "hospital-a", UNLIMITED)
    ledger.reserve(evaluation(4.0))
    assert ledger.epsilon(STUDY, "held_out", 1e-5) == pytest.approx(4.0)
    for number in range(100):  # many small ones compose better as Gaussian releases
        ledger.reserve(evaluation(0.05, run_id=f"look-{number}", study_digest=OTHER))
    as_gaussian = composed_epsilon(100 * pure_mu(0.05) ** 2, 1e-5)
    assert ledger.epsilon(OTHER, "held_out", 1e-5) == pytest.approx(as_gaussian) != 5.0


def test_older_head_is_refused_until_an_administrator_reconciles(
    path: Path, ledger: Ledger
) -> None:
    ledger.reserve(training(1))
    backup = path.read_bytes(), path.with_name("ledger.jsonl.head").read_bytes()
    ledger.commit(ledger.reserve(training(2)), PAYLOAD)
    remembered = ledger.head
    path.write_bytes(backup[0])
    path.with_name("ledger.jsonl.head").write_bytes(backup[1])
    restored = Ledger(path, "hospital-a", BUDGETS)
    with pytest.raises(LedgerError) as caught:
        restored.require_head(remembered)
    assert caught.value.code == ErrorCode.LEDGER_ROLLBACK
    reconcile(
        path,
        "hospital-a",
        lost_head=remembered,
        charges=[training(2, run_id="reconciled")],
        by="M. Roe",
        reason="restored from the backup of Tuesday",
    )
    accepted = Ledger(path, "hospital-a", BUDGETS)
    accepted.require_head(remembered)
    accepted.require_head(None)
    assert accepted.spent(STUDY, "train") == pytest.approx(2 / SIGMA**2)


def test_file_behind_its_own_head_is_refused(path: Path, ledger: Ledger) -> None:
    ledger.reserve(training(1))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(LedgerError) as caught:
        Ledger(path, "hospital-a", BUDGETS)
    assert caught.value.code == ErrorCode.LEDGER_ROLLBACK
    with pytest.raises(LedgerError):
        ledger.reserve(training(2))
    path.unlink()
    with pytest.raises(LedgerError):
        Ledger(path, "hospital-a", BUDGETS)


def test_torn_last_line_is_dropped_and_recorded(path: Path, ledger: Ledger) -> None:
    ledger.reserve(training(1))
    whole = path.read_bytes()
    for tail in (b'{"ledger":1,"seq', b"\0" * 50, b"\0" * 20 + b'"x"}\n'):
        path.write_bytes(whole + tail)
        reopened = Ledger(path, "hospital-a", BUDGETS)
        assert reopened.entries()[-1].kind == "recovered"
        assert reopened.spent(STUDY, "train") == pytest.approx(1 / SIGMA**2)
        whole = path.read_bytes()
    assert len(read_ledger(path)) == 5


def test_change_under_a_running_ledger_is_noticed(path: Path, ledger: Ledger) -> None:
    ledger.reserve(training(1))
    ledger.reserve(training(2))
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"round":1', b'"round":7'))
    with pytest.raises(LedgerError):
        ledger.reserve(training(3))
    path.write_bytes(data)
    ledger.reserve(training(3))


def test_ledger_of_another_hospital_is_refused(path: Path, ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="hospital-a"):
        Ledger(path, "hospital-b", BUDGETS)


def test_rehashed_line_breaks_the_chain(path: Path, ledger: Ledger) -> None:
    ledger.reserve(training(1))
    ledger.reserve(training(2))
    ledger.reserve(training(3))
    lines = path.read_bytes().splitlines()
    forged = json.loads(lines[1])
    forged["entry"]["mu_squared"] = 1e-9
    del forged["sha256"]
    forged["sha256"] = hashlib.sha256(canonical_json(forged).encode()).hexdigest()
    lines[1] = canonical_json(forged).encode()
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(LedgerError, match="does not follow"):
        Ledger(path, "hospital-a", BUDGETS)


def _reserve_all(path: Path, worker: int) -> None:
    ledger = Ledger(path, "hospital-a", BUDGETS)
    for number in range(1, 8):
        try:
            ledger.reserve(training(number, run_id=f"run-{worker}"))
        except BudgetError:
            return


def test_processes_and_threads_never_overspend_together(path: Path, ledger: Ledger) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_reserve_all, args=(path, i)) for i in range(3)]
    threads = [threading.Thread(target=_reserve_all, args=(path, i)) for i in range(3, 5)]
    for worker in (*workers, *threads):
        worker.start()
    for worker in (*workers, *threads):
        worker.join()
    ledger.verify()
    assert len(ledger.reservations()) == 10
    assert ledger.epsilon(STUDY, "train", 1e-5) <= 3.0 * (1 + 1e-12)


def test_budgets_follow_the_policy_of_the_hospital(path: Path) -> None:
    policy = SitePolicy(
        site_id="hospital-a",
        lifetime_epsilon=2.0,
        approvals=[
            Approval(study_digest=STUDY, epsilon_ceiling=1.0, evaluation_epsilon_ceiling=20.0)
        ],
    )
    ledger = Ledger(path, "hospital-a", LedgerBudgets.from_policy(policy))
    sigma = training_sigma(1.0, 1e-5, 4)
    for number in range(1, 5):
        ledger.reserve(training(number, mu_squared=1 / sigma**2))
    with pytest.raises(BudgetError, match="study budget"):
        ledger.reserve(training(5, mu_squared=1e-4))
    ledger.reserve(evaluation(6.0))  # the default evaluation fits three times
    ledger.reserve(evaluation(6.0, run_id="2"))
    ledger.reserve(evaluation(6.0, run_id="3"))
    with pytest.raises(BudgetError):
        ledger.reserve(evaluation(6.0, run_id="4"))


def test_files_are_private(path: Path, ledger: Ledger) -> None:
    ledger.reserve(training(1))
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_three_accountants_agree_on_a_mixed_ledger(path: Path) -> None:
    ledger = Ledger(path, "hospital-a", UNLIMITED)
    for number in range(1, 11):
        ledger.reserve(training(number))
    ledger.reserve(evaluation(4.0))
    ledger.reserve(evaluation(2.0, purpose="evaluate response"))
    accounts = recompose(ledger.entries(), 1e-5, where="test")
    assert all(account.agree for account in accounts)
    train = next(a for a in accounts if a.partition == "train" and a.study_digest == STUDY)
    assert train.second_epsilon == pytest.approx(3.0, rel=5e-3)
    held_out = next(a for a in accounts if a.partition == "held_out")
    assert held_out.epsilon == pytest.approx(6.0)
    assert held_out.second_epsilon <= 6.0 + 1e-6
    assert train.second_epsilon < train.third_epsilon <= 3.02
    assert held_out.third_epsilon is None  # tables have no Gaussian noise
    assert train.fallback_epsilon is None  # these lines do not tell their shares


def test_auditor_sees_what_is_left_if_all_others_collude(path: Path) -> None:
    """With 5 shares of noise epsilon 1 becomes 2.4: the figure of the design."""
    ledger = Ledger(path, "hospital-a", UNLIMITED)
    mu = gaussian_mu(1.0, 1e-5) ** 2
    for number in range(1, 11):
        ledger.reserve(training(number, parameters={"shares": 5}, mu_squared=mu / 10))
    train = recompose(ledger.entries(), 1e-5, where="test")[0]
    assert train.epsilon == pytest.approx(1.0, rel=1e-6)
    assert train.fallback_epsilon == pytest.approx(fallback_epsilon(1.0, 1e-5, 5), rel=1e-6)


def test_accountants_disagree_on_a_misdeclared_sampled_release(path: Path) -> None:
    ledger = Ledger(path, "hospital-a", UNLIMITED)
    # sigma 0.8 at rate 0.05, booked at the central-limit figure, which understates
    ledger.reserve(
        training(1, parameters={"sigma": 0.8, "sampling_rate": 0.05}, mu_squared=0.05**2 * 0.5)
    )
    account = recompose(ledger.entries(), 1e-5, where="test")[0]
    assert not account.agree
    assert account.third_epsilon == pytest.approx(account.second_epsilon, abs=0.02)


@pytest.mark.parametrize(
    ("noise", "sigma"),
    [
        ({"sigma": 0.5}, 0.5),
        ({"sigma": 5.0, "releases_per_round": 100}, 0.5),
        (
            {
                "clip": 1.0,
                "step": 2.0**-14,
                "dimension": 4,
                "shares": 3,
                "share_variance_steps": (0.5 * (2**14 + 2.002)) ** 2 / 3,
                "sigma": 10.0,  # claimed beside, and wrong
            },
            0.5,
        ),
    ],
)
def test_audit_composes_from_the_noise_and_not_from_the_charge(
    noise: dict[str, object], sigma: float, path: Path
) -> None:
    """One release of sigma 0.5, charged as mu^2 0.01: 0.34 was said, the truth is 10."""
    ledger = Ledger(path, "hospital-a", UNLIMITED)
    ledger.reserve(training(1, parameters=noise, mu_squared=0.01))
    account = recompose(ledger.entries(), 1e-5, where="test")[0]
    truth = gaussian_epsilon(1 / sigma, 1e-5)
    assert truth == pytest.approx(10.0, abs=0.05)
    assert account.epsilon == pytest.approx(0.35, abs=0.05)
    assert account.second_epsilon == pytest.approx(truth, rel=5e-3)
    assert account.third_epsilon == pytest.approx(truth, abs=0.05)
    assert account.undercharged == 1
    assert not account.agree


def test_audit_sees_tables_that_were_charged_too_little(path: Path) -> None:
    ledger = Ledger(path, "hospital-a", UNLIMITED)
    tables = {"margin": 0.5, "curve": 2.0}
    ledger.reserve(evaluation(0.6, parameters={"epsilon": tables}))
    account = recompose(ledger.entries(), 1e-5, where="test")[0]
    assert account.second_epsilon == pytest.approx(2.5, abs=1e-3)
    assert account.undercharged == 1
    assert not account.agree
