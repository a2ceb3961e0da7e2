"""Show a hospital its ledger, and add the entries of its administrator."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.site.sealed_replies import SealedReplies
from common.errors import BudgetError, ConfigError
from common.ledger.ledger import Ledger, LedgerBudgets
from common.ledger.ledger_budget import composed_fallback, composed_spend
from common.ledger.ledger_entry import LedgerRecord, Partition, Reservation, SpendEntry
from common.ledger.ledger_file import read_ledger, reconcile
from common.ledger.ledger_state import LedgerState
from common.privacy.accounting import gaussian_mu, pure_mu
from common.storage.atomic_file import write_bytes
from common.study.site_policy import SitePolicy

SEALED_FOLDER = "replies"


@dataclass(frozen=True)
class Account:
    """What one study (None: all) spent from one set of patients, and what is left of it.

    `fallback_epsilon` holds if the server and all other hospitals collude; None: not recorded.
    """

    study_digest: str | None
    partition: Partition
    releases: int
    exact: int
    mu_squared: float
    epsilon: float
    fallback_epsilon: float | None
    left: float | None
    currency: str


@dataclass(frozen=True)
class LedgerView:
    """A verified ledger, added up."""

    lines: int
    head: str
    delta: float
    accounts: list[Account]
    open: list[Reservation]

    def as_dict(self) -> dict[str, object]:
        """Return the view for JSON."""
        return {
            "lines": self.lines,
            "head": self.head,
            "delta": self.delta,
            "accounts": [dict(vars(account)) for account in self.accounts],
            "open": [reservation.model_dump(mode="json") for reservation in self.open],
        }


def ledger_view(policy: SitePolicy) -> LedgerView:
    """Return the ledger of a hospital, without changing it.

    Raises:
        LedgerError: It is missing or damaged.
    """
    return add_up(read_ledger(policy.ledger), policy)


def add_up(records: Sequence[LedgerRecord], policy: SitePolicy) -> LedgerView:
    """Return what verified lines add up to under a hospital's ceilings.

    Raises:
        LedgerError: The lines contradict each other.
        PrivacyError: A ceiling of the policy is none.
    """
    state = LedgerState(records, str(policy.ledger))
    budgets = LedgerBudgets.from_policy(policy)
    scopes = sorted(state.scopes(), key=lambda scope: (scope[0] or "", scope[1]))
    accounts = [_account(state, budgets, *scope, policy.delta) for scope in scopes]
    waiting = [r for r in state.reservations() if r.state == "open"]
    return LedgerView(len(records), records[-1].sha256, policy.delta, accounts, waiting)


def export_ledger(policy: SitePolicy, to: Path) -> list[LedgerRecord]:
    """Write a verified copy and return its records.

    Raises:
        ConfigError: The target exists.
        LedgerError: The ledger is missing or damaged.
    """
    if to.exists():
        raise ConfigError("the file exists", where=str(to), cure="choose another name")
    records = read_ledger(policy.ledger)
    write_bytes(to, b"".join(record.line() for record in records))
    return records


def release_reservation(policy: SitePolicy, sequence: int, *, by: str, reason: str) -> None:
    """Give back an open reservation for which no reply is stored.

    Raises:
        BudgetError: It was computed.
        LedgerError: There is no such reservation, or the ledger is damaged.
    """
    ledger = Ledger(policy.ledger, policy.site_id, LedgerBudgets.from_policy(policy))
    matches = [r for r in ledger.reservations() if r.sequence == sequence]
    has_reply = any(_is_stored(policy, reservation.entry) for reservation in matches)
    ledger.release(sequence, by=by, reason=reason, computed=has_reply)


def reconcile_ledger(
    policy: SitePolicy,
    *,
    study_digest: str,
    partition: Literal["train", "held_out", "validation"],
    epsilon: float,
    lost_head: str | None,
    by: str,
    reason: str,
) -> LedgerRecord:
    """Accept a restored ledger and charge `epsilon` for the lines it lost.

    Without `lost_head` the head file beside the ledger names what was lost.

    Raises:
        LedgerError: The restored chain itself is broken.
    """
    pure = partition != "train"
    mu = pure_mu(epsilon) if pure else gaussian_mu(epsilon, policy.delta)
    head = lost_head or _remembered_head(policy.ledger)
    charge = SpendEntry(
        study_digest=study_digest,
        run_id="reconciled",
        round=0,
        model_digest=head or "0" * 64,
        partition=partition,
        purpose="reconcile",
        mechanism="geometric" if pure else "gaussian",
        mu_squared=mu**2,
        pure_epsilon=epsilon if pure else None,
    )
    return reconcile(
        policy.ledger, policy.site_id, lost_head=head, charges=[charge], by=by, reason=reason
    )


def _account(
    state: LedgerState,
    budgets: LedgerBudgets,
    study: str | None,
    partition: Partition,
    delta: float,
) -> Account:
    entries = list(state.spends(study, partition))
    noisy_entries = [entry for entry in entries if entry.mechanism != "none"]
    left, currency = None, ""
    try:
        caps = dict(budgets.caps(study or "", partition)) if study else {}
        cap = caps.get("study") if study else budgets.hospital.get(partition)
    except BudgetError:  # a study that is no longer approved has no ceiling to show
        cap = None
    if cap is not None:
        left = max(cap.amount - cap.cost(noisy_entries), 0.0)
        currency = cap.currency
    return Account(
        study_digest=study,
        partition=partition,
        releases=len(noisy_entries),
        exact=len(entries) - len(noisy_entries),
        mu_squared=sum(entry.mu_squared for entry in noisy_entries),
        epsilon=composed_spend(noisy_entries, delta),
        fallback_epsilon=composed_fallback(noisy_entries, delta),
        left=left,
        currency=currency,
    )


def _is_stored(policy: SitePolicy, entry: SpendEntry) -> bool:
    folder = policy.state / SEALED_FOLDER
    if not folder.is_dir():
        return False
    return SealedReplies(folder).holds(entry.run_id, entry.round, entry.model_digest)


def _remembered_head(ledger: Path) -> str | None:
    path = ledger.with_name(ledger.name + ".head")
    try:
        head = json.loads(path.read_bytes())["head"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return head if isinstance(head, str) and len(head) == 64 else None
