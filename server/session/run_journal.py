"""Write a run into the coordinator's audit log: who took part, what was refused, what closed.

A run in the folder of a consortium is logged there, signed and chained; a simulation has no
audit log and writes none.
"""

from __future__ import annotations

from pathlib import Path

from common.process.event_log import event as log_event
from common.trust.audit_log import AuditLog
from common.trust.audit_record import Fact
from server.consortium.consortium_folder import consortium_of_run
from server.consortium.provision import audit_log


class RunJournal:
    """Writes the events of one run to the audit log, and to the structured log if one is open.

    Args:
        run_id: The run.
        audit: The coordinator's audit log; None in a simulation.
    """

    def __init__(self, run_id: str, audit: AuditLog | None) -> None:
        self._run_id, self._audit = run_id, audit

    def write(
        self, event: str, *, round: int | None = None, site: str = "", code: str = "", **facts: Fact
    ) -> None:
        """Write one event; it is on disk when this returns.

        Raises:
            LedgerError: The log was damaged or cut off (AUDIT_LOG).
            OSError: The disk is full.
        """
        log_event(event, run=self._run_id, round=round, site=site, code=code, **facts)
        if self._audit is not None:
            self._audit.append(event, run=self._run_id, round=round, site=site, code=code, **facts)


def open_journal(run_dir: Path, run_id: str) -> RunJournal:
    """Return the journal of a run; it goes to the consortium whose folder holds the run.

    Raises:
        ConfigError: The consortium's audit key cannot be read.
    """
    folder = consortium_of_run(run_dir)
    return RunJournal(run_id, audit_log(folder) if folder is not None else None)
