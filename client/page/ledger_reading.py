"""Read the ledger for a page: verified again whenever it changed, never written.

The agent appends while the page reads. A line that is there before its head file, or a head file
that is newer than what was just read, looks like damage for a moment; only lasting damage counts.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from client.site.ledger_view import LedgerView, add_up
from common.errors import TumorboardError
from common.ledger.ledger_entry import LedgerRecord
from common.ledger.ledger_file import read_ledger
from common.page.problem import Problem
from common.study.site_policy import SitePolicy

TRIES = 4
PAUSE_S = 0.05


@dataclass(frozen=True)
class LedgerReading:
    """A ledger at one moment.

    Attributes:
        view: Its sums; None if there is none, or none that verifies.
        records: Its lines, oldest first.
        problem: Why it cannot be read.
    """

    view: LedgerView | None = None
    records: tuple[LedgerRecord, ...] = ()
    problem: Problem | None = None


class LedgerReader:
    """Reads one hospital's ledger, and remembers the reading while the file stays the same."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[object, LedgerReading] | None = None

    def read(self, policy: SitePolicy) -> LedgerReading:
        """Return the ledger of a hospital; never fails."""
        with self._lock:
            stamp = (policy.digest(), _stamp(policy.ledger))
            if self._known is None or self._known[0] != stamp:
                self._known = (stamp, _read(policy))
            return self._known[1]


def _read(policy: SitePolicy) -> LedgerReading:
    for _ in range(TRIES):
        try:
            if not policy.ledger.is_file() or policy.ledger.stat().st_size == 0:
                return LedgerReading()
            records = tuple(read_ledger(policy.ledger))
            return LedgerReading(add_up(records, policy), records)
        except TumorboardError as error:
            problem = Problem.of_error(error, weight="stops")
        except OSError as error:
            cure = "Serve this page as the user of the site agent, who alone may read the ledger."
            problem = Problem("warns", f"The ledger cannot be read: {error.strerror}.", cure)
        time.sleep(PAUSE_S)
    return LedgerReading(problem=problem)


def _stamp(path: Path) -> tuple[object, ...]:
    stamps: list[object] = []
    for file in (path, path.with_name(path.name + ".head")):
        try:
            status = file.stat()
            stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except OSError:
            stamps.append(None)
    return tuple(stamps)
