"""Add up the spends of a ledger's lines."""

from collections.abc import Iterable, Sequence

from common.errors import LedgerError
from common.ledger.ledger_budget import affected
from common.ledger.ledger_entry import LedgerRecord, Partition, Reservation, SpendEntry, damaged

_Key = tuple[str, int, str, str]
_Scope = tuple[str | None, Partition]


class LedgerState:
    """Replay of the records of one ledger.

    Args:
        records: Verified records to begin with, oldest first.
        where: Names the ledger in errors.

    Attributes:
        reconciled: Lost heads that an administrator has answered for.

    Raises:
        LedgerError: The records contradict each other.
    """

    def __init__(self, records: Iterable[LedgerRecord] = (), where: str = "") -> None:
        self.reconciled: set[str] = set()
        self._reservations: dict[int, Reservation] = {}
        self._keys: dict[_Key, int] = {}
        self._spends: dict[_Scope, dict[tuple[int, int], SpendEntry]] = {}
        for record in records:
            self.apply(record, where)

    def apply(self, record: LedgerRecord, where: str) -> None:
        """Add a verified record.

        Raises:
            LedgerError: It contradicts the records before it.
        """
        place = f"{where}, line {record.sequence + 1}"
        if record.kind == "reserve" and record.entry is not None:
            if record.entry.key in self._keys:
                raise damaged("one release was reserved twice", place)
            self._reservations[record.sequence] = Reservation(
                sequence=record.sequence, entry=record.entry
            )
            self._keys[record.entry.key] = record.sequence
            self._charge((record.sequence, 0), record.entry)
        elif record.kind == "commit" and record.reservation is not None:
            self._commit(record, place)
        elif record.kind == "administrator" and record.administrator is not None:
            self._administer(record, place)
        elif record.kind not in ("genesis", "recovered"):
            raise damaged("a line lacks what its kind needs", place)

    def by_key(self, entry: SpendEntry) -> Reservation | None:
        """Return the reservation under the key of an entry, or None."""
        sequence = self._keys.get(entry.key)
        return None if sequence is None else self._reservations[sequence]

    def reservation(self, sequence: int) -> Reservation:
        """Return a reservation that counts.

        Raises:
            LedgerError: There is none under this number.
        """
        if sequence not in self._reservations:
            raise LedgerError(
                f"line {sequence + 1} is not a reservation that counts",
                cure="`tumorboard site ledger show` lists them",
            )
        return self._reservations[sequence]

    def reservations(self) -> list[Reservation]:
        """Return all reservations that count, oldest first."""
        return list(self._reservations.values())

    def spends(self, study_digest: str | None, partition: Partition) -> Sequence[SpendEntry]:
        """Return what counts against a study (None: the hospital) and a partition."""
        return list(self._spends.get((study_digest, partition), {}).values())

    def scopes(self) -> list[tuple[str | None, Partition]]:
        """Return every (study or None, partition) that something was spent from."""
        return [scope for scope, spends in self._spends.items() if spends]

    def _commit(self, record: LedgerRecord, place: str) -> None:
        match = self._reservations.get(record.reservation if record.reservation is not None else -1)
        if match is None or match.state == "committed" or record.payload_digest is None:
            raise damaged("a commit has no open reservation", place)
        self._reservations[match.sequence] = match.model_copy(
            update={"state": "committed", "payload_digest": record.payload_digest}
        )

    def _administer(self, record: LedgerRecord, place: str) -> None:
        word = record.administrator
        assert word is not None
        if word.lost_head is not None:
            self.reconciled.add(word.lost_head)
        for number, entry in enumerate(word.charges):
            self._charge((record.sequence, number), entry)
        if word.action == "release":
            match = self._reservations.get(-1 if word.reservation is None else word.reservation)
            if match is None or match.state == "committed":
                raise damaged("an administrator released what is not open", place)
            del self._reservations[match.sequence], self._keys[match.entry.key]
            for scope in self._scopes(match.entry):
                del self._spends[scope][(match.sequence, 0)]

    def _charge(self, number: tuple[int, int], entry: SpendEntry) -> None:
        for scope in self._scopes(entry):
            self._spends.setdefault(scope, {})[number] = entry

    @staticmethod
    def _scopes(entry: SpendEntry) -> list[_Scope]:
        paying = affected(entry.partition)
        return [(study, p) for study in (None, entry.study_digest) for p in paying]
