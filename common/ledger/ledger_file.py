"""Store a ledger as a hash-chained, append-only, locked file with its head beside it.

The head file names the last line that was reported as written. It separates a torn last line (never
reported: drop it) from a last line that was damaged or cut off later (refuse).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.contract import canonical_json
from common.errors import ErrorCode, LedgerError
from common.ledger.ledger_entry import AdministratorWord, LedgerRecord, SpendEntry, damaged
from common.storage import durable
from common.storage.atomic_file import write_bytes

_Stamp = tuple[int, int, int]
"""Identity of the file's content: inode, size, time of change in ns."""


class LedgerFile:
    """Verified records of one ledger file.

    All methods but `read` need `lock` to be held. The whole chain is verified when it is first
    read and whenever the file changed in any way but by growing; growth is verified line by line.

    Attributes:
        records: Records so far, in order.
        hashes: Sequence number by SHA-256 of the record.
        generation: Increases when the records are read again from the start.
    """

    def __init__(self, path: Path, site_id: str) -> None:
        self.path, self.site_id = path, site_id
        self.records: list[LedgerRecord] = []
        self.hashes: dict[str, int] = {}
        self.generation = 0
        self._end = 0
        self._stamp: _Stamp | None = None

    @property
    def head_path(self) -> Path:
        """The file that names the last synced line."""
        return self.path.with_name(self.path.name + ".head")

    @property
    def lock_path(self) -> Path:
        """The file that is locked."""
        return self.path.with_name(self.path.name + ".lock")

    @property
    def last(self) -> LedgerRecord | None:
        """The newest record."""
        return self.records[-1] if self.records else None

    def forget(self) -> None:
        """Drop what was read; the next `refresh` verifies the whole chain."""
        self.records, self.hashes = [], {}
        self.generation += 1
        self._end, self._stamp = 0, None

    def refresh(self, *, trust_head: bool = True) -> None:
        """Read what is new; recover a torn last line; create a missing file.

        Args:
            trust_head: Check against the head file; an administrator's reconciliation does not.

        Raises:
            LedgerError: The chain is broken, cut off, or of another site.
        """
        stamp = self._stat()
        if stamp is not None and stamp == self._stamp:
            return
        longer = self._stamp and stamp and stamp[0] == self._stamp[0] and stamp[1] > self._stamp[1]
        if not longer:
            self.forget()
        is_torn = self._read_from(self._end) if stamp is not None else False
        if trust_head:
            self._check_head()
        if not self.records:
            self.append(kind="genesis")
        elif is_torn:
            self.append(kind="recovered", note="a torn last line was dropped")
        elif not self.head_path.exists():
            self._write_head()
        self._stamp = self._stat()

    def append(self, **fields: Any) -> LedgerRecord:
        """Write the next record; when this returns it is on disk.

        Args:
            fields: Fields of `LedgerRecord` except those of the chain.
        """
        record = LedgerRecord.following(self.last, self.site_id, **fields)
        line = record.line()
        durable.append(self.path, line, at=self._end)
        self._add(record, len(line))
        self._write_head()
        self._stamp = self._stat()
        return record

    def _write_head(self) -> None:
        last = self.records[-1]
        body = {"sequence": last.sequence, "head": last.sha256}
        write_bytes(self.head_path, canonical_json(body).encode() + b"\n", mode=0o600)

    def _read_from(self, start: int) -> bool:
        """Verify and add all whole lines behind `start`; return whether a torn one follows.

        A torn line lacks its end, or parts of it when the disk wrote its blocks out of order.
        """
        with self.path.open("rb") as file:
            file.seek(start)
            lines = file.read().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            where = f"{self.path}, line {len(self.records) + 1}"
            try:
                record = LedgerRecord.parse(line, self.last, where=where)
            except LedgerError:
                if number == len(lines):
                    return True
                raise
            if record.site_id != self.site_id or (record.kind == "genesis") != (not self.records):
                raise damaged(f"the line belongs to site '{record.site_id}'", where)
            self._add(record, len(line))
        return False

    def _add(self, record: LedgerRecord, size: int) -> None:
        self.records.append(record)
        self.hashes[record.sha256] = record.sequence
        self._end += size

    def _check_head(self) -> None:
        if not self.head_path.exists():
            if len(self.records) > 1:
                raise damaged("the head file is missing", str(self.head_path))
            return
        raw = self.head_path.read_bytes()
        try:
            head = json.loads(raw)
            sequence, digest = head["sequence"], head["head"]
            if canonical_json(head).encode() + b"\n" != raw or len(head) != 2:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise damaged("the head file was changed", str(self.head_path)) from None
        if self.hashes.get(digest) != sequence:
            raise LedgerError(
                "the ledger is older than its own head",
                where=str(self.path),
                why=f"line {sequence + 1} with hash {str(digest)[:12]} was written and is gone",
                cure="restore the newest backup or export, then run "
                "`tumorboard site ledger reconcile`",
                code=ErrorCode.LEDGER_ROLLBACK,
            )

    def _stat(self) -> _Stamp | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return (status.st_ino, status.st_size, status.st_mtime_ns)


def read_ledger(path: Path) -> list[LedgerRecord]:
    """Return the verified records of a ledger without changing anything.

    A torn last line is left out if the head file says that it was never reported as written.

    Raises:
        LedgerError: The file is missing or empty, or its chain is broken or cut off.
    """
    if not path.is_file() or path.stat().st_size == 0:
        raise LedgerError(
            "there is no ledger here", where=str(path), cure="check the path in site.yaml"
        )
    with path.open("rb") as stream:
        first = stream.readline()
    file = LedgerFile(path, LedgerRecord.parse(first, None, where=f"{path}, line 1").site_id)
    is_torn = file._read_from(0)
    if file.head_path.exists():
        file._check_head()
    elif is_torn:
        raise damaged("the last line was changed", f"{path}, line {len(file.records) + 1}")
    return file.records


def reconcile(
    path: Path,
    site_id: str,
    *,
    lost_head: str | None,
    charges: Sequence[SpendEntry],
    by: str,
    reason: str,
) -> LedgerRecord:
    """Record that a ledger lost lines, charge for them, and accept it as it now is.

    Args:
        path: The ledger, as restored.
        site_id: The hospital.
        lost_head: Head that the server (or the head file) remembers.
        charges: Epsilon to be assumed spent in the lost lines.
        by: Who decides.
        reason: What happened.

    Raises:
        LedgerError: The restored chain itself is broken.
    """
    file = LedgerFile(path, site_id)
    word = AdministratorWord(
        action="reconcile", by=by, reason=reason, lost_head=lost_head, charges=list(charges)
    )
    with durable.exclusive_lock(file.lock_path):
        file.refresh(trust_head=False)
        return file.append(kind="administrator", administrator=word)
