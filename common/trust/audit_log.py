"""Write a signed, hash-chained, append-only log of the actions of coordinator or hospital.

One JSON object per line, on disk before the call that caused it is answered. The head file beside
it names the last line reported as written; it separates a torn last line (a power cut: dropped, and
said so) from one that was cut off later (refused). Several processes may write one log.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.contract import canonical_json
from common.errors import ErrorCode, LedgerError
from common.storage import durable
from common.storage.atomic_file import write_bytes
from common.trust.audit_record import AuditRecord, Fact, damaged
from common.trust.signature import public_half


@dataclass
class _Scan:
    """How far a log was read.

    Attributes:
        last: Last good record.
        end: Bytes of good lines.
        torn: Whether something unreadable follows the last good line.
        head_seen: Whether the line that the head file names was met, or there is no head.
    """

    last: AuditRecord | None = None
    end: int = 0
    torn: bool = False
    head_seen: bool = False


class AuditLog:
    """An audit log open for appending.

    Args:
        path: The file; made with its folder by the first line.
        actor: Name of the side that writes it.
        key: Signs every line.
    """

    def __init__(self, path: Path, actor: str, key: Ed25519PrivateKey) -> None:
        self.path, self.actor = path, actor
        self._key = key
        self._scan = _Scan()
        self._stamp = (0, 0, 0)
        self._thread = threading.Lock()

    def append(
        self,
        event: str,
        *,
        run: str = "",
        round: int | None = None,
        site: str = "",
        code: str = "",
        **facts: Fact,
    ) -> AuditRecord:
        """Write one line; when this returns it is on disk.

        Args:
            event: What happened, one word.
            run: Run it belongs to.
            round: Round it belongs to.
            site: Site it is about.
            code: Stable code of a refusal.
            facts: Digests, counts and names; never a patient's, never an exception's text.

        Raises:
            LedgerError: The log was damaged or cut off since it was last read (AUDIT_LOG).
            OSError: The disk is full or cannot be written.
        """
        fields: dict[str, object] = {
            "run": run,
            "round": round,
            "site": site,
            "code": code,
            "facts": facts,
        }
        durable.private_folder(self.path.parent)
        with self._thread, durable.exclusive_lock(self.path.with_name(f"{self.path.name}.lock")):
            self._refresh()
            if self._scan.torn:
                self._write("recovered", {"facts": {"note": "a torn last line was dropped"}})
            return self._write(event, fields)

    def head(self) -> str | None:
        """Return the SHA-256 of the last line; None for an empty log.

        Raises:
            LedgerError: The log is damaged (AUDIT_LOG).
        """
        with self._thread, durable.exclusive_lock(self.path.with_name(f"{self.path.name}.lock")):
            self._refresh()
            return self._scan.last.sha256 if self._scan.last else None

    def _refresh(self) -> None:
        stamp = self._stat()
        if stamp == self._stamp and self._scan.last is not None:
            return
        has_grown = stamp[0] == self._stamp[0] and stamp[1] > self._scan.end
        if not has_grown:
            self._scan = _Scan()
        try:
            self._scan = _move_on(self.path, self._scan, public_half(self._key))
        except LedgerError:  # the whole chain decides
            self._scan = _move_on(self.path, _Scan(), public_half(self._key))
        self._stamp = stamp
        if self._scan.last is not None and self._scan.last.actor != self.actor:
            raise damaged("this is the audit log of another side", str(self.path))

    def _write(self, event: str, fields: dict[str, object]) -> AuditRecord:
        last = self._scan.last
        record = AuditRecord.following(last, self.actor, self._key, event=event, **fields)
        line = record.line()
        durable.append(self.path, line, at=self._scan.end)
        write_bytes(head_path(self.path), _head_text(record), mode=0o600)
        self._scan = _Scan(record, self._scan.end + len(line), torn=False, head_seen=True)
        self._stamp = self._stat()
        return record

    def _stat(self) -> tuple[int, int, int]:
        """Return inode, size and time of change (ns), by which contents differ."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return (0, 0, 0)
        return (status.st_ino, status.st_size, status.st_mtime_ns)


def read_audit(path: Path, public_key: str | None = None) -> list[AuditRecord]:
    """Return all records after checking every hash, the chain, and every signature.

    Changes nothing. A torn last line that was never reported as written is left out.

    Args:
        path: The log, or a copy of it.
        public_key: Key of its owner, hex; None takes the one the first line names.

    Raises:
        LedgerError: The file is missing or empty, or its chain is broken or cut off (AUDIT_LOG).
    """
    if not path.is_file() or path.stat().st_size == 0:
        raise LedgerError(
            "no audit log is at this path",
            where=str(path),
            cure="check the path",
            code=ErrorCode.AUDIT_LOG,
        )
    state = _Scan()
    records = list(_records(path, state, public_key))
    _check_head(path, state)
    if not records:
        raise damaged("the audit log holds no whole line", str(path))
    return records


def _move_on(path: Path, state: _Scan, public_key: str) -> _Scan:
    """Return `state` moved to the end of the log; a log without a whole line is a new one.

    Raises:
        LedgerError: The chain is broken or cut off (AUDIT_LOG).
    """
    scan = _Scan(state.last, state.end)
    if path.exists():
        for _ in _records(path, scan, public_key):
            pass
    if scan.last is not None or head_path(path).exists():
        _check_head(path, scan)
    return scan


def head_path(path: Path) -> Path:
    """Return the file that names the last synced line."""
    return path.with_name(f"{path.name}.head")


def _records(path: Path, state: _Scan, public_key: str | None) -> Iterator[AuditRecord]:
    """Yield the good records behind `state`, which moves along."""
    head = _read_head(path)
    state.head_seen = head is None or (state.last is not None and state.last.sha256 == head)
    with path.open("rb") as stream:
        stream.seek(state.end)
        lines = stream.read().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        count = 1 if state.last is None else state.last.sequence + 2
        where = f"{path}, line {count}"
        try:
            record = AuditRecord.parse(line, state.last, public_key, where=where)
        except LedgerError:
            if number < len(lines) or (state.last is None and head is not None):
                raise
            state.torn = True
            return
        state.last, state.end = record, state.end + len(line)
        state.head_seen = state.head_seen or record.sha256 == head
        yield record


def _check_head(path: Path, state: _Scan) -> None:
    head = _read_head(path)
    if state.torn and head is None:
        raise damaged("the last line of the audit log was changed", str(path))
    if not state.head_seen and head is not None:
        raise damaged("the audit log lacks a line that was written", str(path))


def _read_head(path: Path) -> str | None:
    try:
        return str(json.loads(head_path(path).read_bytes())["head"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise damaged("the head of the audit log was changed", str(head_path(path))) from None


def _head_text(record: AuditRecord) -> bytes:
    body = {"sequence": record.sequence, "head": record.sha256}
    return canonical_json(body).encode() + b"\n"
