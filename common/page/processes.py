"""Describe supervised processes on a page: which run, which answer, which were restarted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.page.problem import Problem
from common.process.grpc_health import is_serving
from common.process.supervisor import Supervised, read_supervised

HEALTH_S = 1.0


@dataclass(frozen=True)
class ProcessRow:
    """One process.

    Attributes:
        name: Its name.
        pid: Its number; None while it is down.
        healthy: Whether it answers its health check, or runs where it has none.
        restarts: How often it ended and was started again.
        log: Its log.
    """

    name: str
    pid: int | None
    healthy: bool
    restarts: int
    log: str


def process_rows(status: Path, health: Mapping[str, str]) -> tuple[ProcessRow, ...] | None:
    """Return the processes of a status file, or None if no supervisor is alive there.

    Args:
        status: Status file of the supervisor.
        health: Process -> key of its health address in the status file.
    """
    try:
        supervised = read_supervised(status)
    except OSError:
        return None
    if supervised is None:
        return None
    return tuple(_row(name, supervised, health.get(name)) for name in sorted(supervised.children))


def process_problems(rows: Sequence[ProcessRow]) -> Iterator[Problem]:
    """Yield what is wrong with processes that should run."""
    for row in rows:
        if not row.healthy:
            state = "is down and is being started again" if row.pid is None else "does not answer"
            cure = f"It is restarted automatically; if that fails, see its log: {row.log}."
            yield Problem("warns", f"The process {state}.", cure, where=row.name)
        elif row.restarts:
            often = "once" if row.restarts == 1 else f"{row.restarts} times"
            cure = f"Nothing, if it keeps running; otherwise see its log: {row.log}."
            yield Problem("notes", f"The process was restarted {often}.", cure, where=row.name)


def _row(name: str, supervised: Supervised, health_key: str | None) -> ProcessRow:
    child = supervised.children[name]
    pid, restarts = child.get("pid"), child.get("restarts")
    up = isinstance(pid, int)
    if up and health_key is not None:
        up = is_serving(str(supervised.facts.get(health_key, "")), timeout_s=HEALTH_S)
    return ProcessRow(
        name=name,
        pid=pid if isinstance(pid, int) else None,
        healthy=up,
        restarts=restarts if isinstance(restarts, int) else 0,
        log=str(child.get("log", "")),
    )
