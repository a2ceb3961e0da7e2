"""Structured log: one JSON object per event with site, run, round and code.

Events hold declared fields only, never the text of an exception, so no patient's name can slip
in. The audit log is the proof of what was done; this one is for watching, and it rotates.
"""

import json
import logging
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from common.trust.audit_record import Fact

MAX_BYTES = 10 << 20
KEPT = 5
"""Rotated files kept beside the present one."""

_events = logging.getLogger("tumorboard.events")
_events.propagate = False
_events.addHandler(logging.NullHandler())


def event(
    name: str,
    *,
    site: str = "",
    run: str = "",
    round: int | None = None,
    code: str = "",
    **facts: Fact,
) -> None:
    """Write one event to the logs that `write_events` opened; nothing if there is none.

    Args:
        name: What happened, one word.
        site: Site it is about.
        run: Run it belongs to.
        round: Round it belongs to.
        code: Stable code of a refusal.
        facts: Durations, counts and digests; never a patient's.
    """
    fields = {"site": site, "run": run, "round": round, "code": code, **facts}
    values = {key: value for key, value in fields.items() if value not in ("", None)}
    level = logging.WARNING if code else logging.INFO
    _events.log(level, name, extra={"fields": values})


def write_events(path: Path) -> logging.Handler:
    """Open a structured log, readable by its owner only; returns its handler.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    handler = RotatingFileHandler(path, maxBytes=MAX_BYTES, backupCount=KEPT, encoding="utf-8")
    handler.setFormatter(_JsonLine())
    _events.setLevel(logging.INFO)
    _events.addHandler(handler)
    return handler


def close_events(handler: logging.Handler) -> None:
    """Close what `write_events` opened."""
    _events.removeHandler(handler)
    handler.close()


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return the declared fields of an event; text and trace of an exception stay out."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        head = {"time": time, "level": record.levelname.lower(), "event": str(record.msg)}
        return json.dumps(head | getattr(record, "fields", {}), ensure_ascii=False)
