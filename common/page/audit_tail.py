"""Read the last lines of an audit log, unverified; `audit log verify` checks the chain."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from common.error_guide import guide_of
from common.page.problem import Problem
from common.trust.audit_record import AuditRecord

LINES = 15
TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class AuditRow:
    """One line in words."""

    line: int
    time: datetime
    what: str
    site: str
    run: str
    round: int | None
    code: str


def audit_tail(path: Path) -> tuple[AuditRow, ...]:
    """Return the last lines, newest first; nothing if there is no log or it cannot be read."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            start = max(0, stream.tell() - TAIL_BYTES)
            stream.seek(start)
            lines = stream.read().splitlines()
    except OSError:
        return ()
    rows = [row for row in map(_row, lines[-LINES - 1 :]) if row is not None]
    return tuple(reversed(rows[-LINES:]))


def refusals(rows: Sequence[AuditRow]) -> Iterator[Problem]:
    """Yield one note for each kind of refusal among the rows."""
    counts = Counter((row.code, row.what, row.site, row.run) for row in rows if row.code)
    for kind, times in sorted(counts.items()):
        code, what, site, run = kind
        last = max(r.time for r in rows if (r.code, r.what, r.site, r.run) == kind)
        often = "once" if times == 1 else f"{times} times"
        of_run = f" of run {run}" if run else ""
        message = f"Refused {often} recently, last at {last:%H:%M:%S} UTC: {what}{of_run}. "
        message += guide_of(code).happened
        yield Problem.of_code(code, weight="notes", where=site, what=message)


def _row(line: bytes) -> AuditRow | None:
    try:
        record = AuditRecord.model_validate(json.loads(line))
        time = datetime.fromisoformat(record.time)
    except (ValueError, ValidationError, RecursionError):
        return None  # cut by the start of the tail, or just being written
    method = record.facts.get("method")
    what = record.event.replace("_", " ")
    return AuditRow(
        line=record.sequence + 1,
        time=time,
        what=f"{what}: {str(method).replace('_', ' ')}" if method else what,
        site=record.site,
        run=record.run,
        round=record.round,
        code=record.code,
    )
