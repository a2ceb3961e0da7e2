"""Keep one hospital's privacy ledger: reserve -> sync -> compute -> commit, within budget.

Every release of patient data is admitted here before the data is read. An admitted release
counts as spent whatever happens afterwards, a crash included. The same release may be requested
again and costs nothing; another release under the same (run, round, purpose) is refused.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from common.errors import BudgetError, ErrorCode, LedgerError
from common.ledger.ledger_budget import (
    LedgerBudgets,
    affected,
    composed_spend,
    refuse,
)
from common.ledger.ledger_entry import (
    AdministratorWord,
    LedgerRecord,
    Partition,
    Reservation,
    SpendEntry,
)
from common.ledger.ledger_file import LedgerFile
from common.ledger.ledger_state import LedgerState
from common.storage import durable

__all__ = ["Ledger", "LedgerBudgets", "Reservation", "SpendEntry"]


class Ledger:
    """Append-only account of one hospital.

    Args:
        path: The file; it and its folder are created if need be. `PATH.head` and `PATH.lock`
            are beside it.
        site_id: The hospital; a ledger of another is refused.
        budgets: Ceilings.

    Raises:
        LedgerError: The chain is broken, or the file is older than its own head.
    """

    def __init__(self, path: Path, site_id: str, budgets: LedgerBudgets) -> None:
        self._file = LedgerFile(path, site_id)
        self._budgets = budgets
        self._state = LedgerState()
        self._applied = (0, 0)
        durable.private_folder(path.parent)
        with durable.exclusive_lock(self._file.lock_path):
            self._refresh()

    def reserve(self, entry: SpendEntry) -> Reservation:
        """Admit a release; when this returns the spend is on disk and data may be read.

        A repeat of the same release returns the reservation that exists, open or committed,
        with `resumed` set, and costs nothing.

        Raises:
            BudgetError: A budget would be exceeded, or the key was spent on something else.
            LedgerError: The chain is broken.
        """
        with durable.exclusive_lock(self._file.lock_path):
            self._refresh()
            existing = self._state.by_key(entry)
            if existing is not None:
                return _same_release(existing, entry)
            self._admit(entry.study_digest, entry.partition, [entry])
            record = self._append(kind="reserve", entry=entry)
            return Reservation(sequence=record.sequence, entry=entry)

    def commit(self, reservation: Reservation, payload_digest: str) -> Reservation:
        """Record that the noised payload of a reservation is stored durably.

        Args:
            reservation: From `reserve`.
            payload_digest: SHA-256 of the stored payload, in hex.

        Raises:
            BudgetError: Another payload was committed for it.
            LedgerError: There is no such reservation.
        """
        with durable.exclusive_lock(self._file.lock_path):
            self._refresh()
            current = self._state.reservation(reservation.sequence)
            if current.entry != reservation.entry:
                raise LedgerError("the reservation is not in this ledger", where=self._where)
            if current.state == "committed":
                if current.payload_digest != payload_digest:
                    raise _already_spent("another payload was released for this reservation")
                return current
            self._append(
                kind="commit", reservation=reservation.sequence, payload_digest=payload_digest
            )
            return self._state.reservation(reservation.sequence)

    def check_plan(self, entries: Sequence[SpendEntry]) -> None:
        """Refuse a whole plan before it starts if the remainder does not cover it.

        Args:
            entries: All releases of the plan, of one study and partition. Those already
                reserved cost nothing.

        Raises:
            BudgetError: The plan exceeds a remainder, or one of its keys was spent otherwise.
        """
        with durable.exclusive_lock(self._file.lock_path):
            self._refresh()
            new = []
            for entry in entries:
                existing = self._state.by_key(entry)
                if existing is None:
                    new.append(entry)
                else:
                    _same_release(existing, entry)
            if new:
                self._admit(new[0].study_digest, new[0].partition, new)

    def release(self, sequence: int, *, by: str, reason: str, computed: bool) -> None:
        """Give back an open reservation that was never computed.

        Args:
            sequence: Number of the `reserve` line.
            by: Who decides.
            reason: Why it is certain that nothing was computed.
            computed: Whether a payload exists, e.g. among the sealed replies.

        Raises:
            BudgetError: It was computed or committed; its budget does not come back.
            LedgerError: There is no such reservation.
        """
        with durable.exclusive_lock(self._file.lock_path):
            self._refresh()
            if computed or self._state.reservation(sequence).state == "committed":
                raise _already_spent("a computed release cannot be given back")
            word = AdministratorWord(action="release", by=by, reason=reason, reservation=sequence)
            self._append(kind="administrator", administrator=word)

    def spent(self, study_digest: str | None, partition: Partition) -> float:
        """Return the sum of mu^2, open reservations included.

        Args:
            study_digest: One study; None = the hospital over all studies.
            partition: Whose patients.
        """
        return math.fsum(e.mu_squared for e in self._state.spends(study_digest, partition))

    def epsilon(self, study_digest: str | None, partition: Partition, delta: float) -> float:
        """Return epsilon (rounded up) of everything spent with noise.

        The smaller of two bounds: all releases as Gaussian ones, or pure releases added up
        beside the Gaussian ones. Exact releases (mechanism none) have no epsilon.

        Args:
            study_digest: One study; None = the hospital over all studies.
            partition: Whose patients.
            delta: In (0, 1).
        """
        return composed_spend(self._state.spends(study_digest, partition), delta)

    @property
    def head(self) -> str:
        """SHA-256 of the newest line; it travels in every message."""
        assert self._file.last is not None
        return self._file.last.sha256

    def require_head(self, head: str | None) -> None:
        """Check that this ledger still holds a head that others remember.

        Raises:
            LedgerError: It does not (LEDGER_ROLLBACK); refuse until reconciled.
        """
        if head is None or head in self._file.hashes or head in self._state.reconciled:
            return
        raise LedgerError(
            "the ledger was rolled back",
            where=self._where,
            why=f"the server remembers head {head[:12]}, which this ledger does not hold",
            cure="restore the newest backup, or run `tumorboard site ledger reconcile` and "
            "charge for what was lost",
            code=ErrorCode.LEDGER_ROLLBACK,
        )

    def entries(self) -> list[LedgerRecord]:
        """Return all records, oldest first."""
        return list(self._file.records)

    def reservations(self) -> list[Reservation]:
        """Return all reservations that count, oldest first."""
        return self._state.reservations()

    def verify(self) -> int:
        """Read and verify the whole file again; return the number of its lines.

        Raises:
            LedgerError: The chain is broken, or the file is older than its own head.
        """
        with durable.exclusive_lock(self._file.lock_path):
            self._file.forget()
            self._refresh()
            return len(self._file.records)

    @property
    def _where(self) -> str:
        return str(self._file.path)

    def _admit(
        self, study_digest: str, partition: Partition, entries: Sequence[SpendEntry]
    ) -> None:
        for paying in affected(partition):
            for level, cap in self._budgets.caps(study_digest, paying):
                scope = study_digest if level == "study" else None
                spends = self._state.spends(scope, paying)
                if not cap.admits([*spends, *entries]):
                    after = cap.cost([*spends, *entries])
                    raise refuse(level, paying, cap, cap.cost(spends), after)

    def _append(self, **fields: object) -> LedgerRecord:
        record = self._file.append(**fields)
        self._replay()
        return record

    def _refresh(self) -> None:
        self._file.refresh()
        self._replay()

    def _replay(self) -> None:
        generation, n_applied = self._applied
        if generation != self._file.generation:
            self._state, n_applied = LedgerState(), 0
        for record in self._file.records[n_applied:]:
            self._state.apply(record, self._where)
            n_applied += 1
            self._applied = (self._file.generation, n_applied)


def _same_release(existing: Reservation, entry: SpendEntry) -> Reservation:
    if existing.entry == entry:
        return existing.model_copy(update={"resumed": True})
    raise _already_spent(
        f"{entry.purpose} of round {entry.round} in run {entry.run_id} was spent on another request"
    )


def _already_spent(what: str) -> BudgetError:
    return BudgetError(
        what,
        why="two answers with fresh noise average the noise away",
        cure="ask for the next round; the stored answer can be fetched with the same request",
        code=ErrorCode.ALREADY_SPENT,
    )
