"""Record an intruder's attempts: what it tried, who refused it, and where that was logged."""

import time
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path

from client.agent.log_files import audit_path
from client.site.identity import load_identity, public_key
from client.site.site_folder import load_policy
from common.errors import LedgerError
from common.trust.audit_log import read_audit
from common.trust.audit_record import AuditRecord
from server.consortium.consortium_folder import ConsortiumFolder

LOG_S = 15.0
NO_HOSPITAL = "no hospital takes part in it"
NO_COORDINATOR = "it does not reach the coordinator"


@dataclass(frozen=True)
class Attempt:
    """One attack.

    Attributes:
        what: What was tried.
        expected: The code that must come back, and no other.
        seen: Codes that were seen.
        coordinator: Where the coordinator can read of it; empty if nowhere.
        hospital: Where the hospital can read of it; empty if nowhere.
    """

    what: str
    expected: str
    seen: Set[str]
    coordinator: str = ""
    hospital: str = ""

    @property
    def is_refused(self) -> bool:
        """Whether exactly the expected code came back."""
        return self.seen == {self.expected}

    def __str__(self) -> str:
        """Return what was seen as one line."""
        codes = ", ".join(sorted(self.seen)) or "nothing"
        return f"{codes}; coordinator: {self.coordinator or 'NOWHERE'}; hospital: " + (
            self.hospital or "NOWHERE"
        )


class AuditWatch:
    """Reads what was added to an audit log since the watch began.

    Args:
        path: The log.
        key: Its owner's public key.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self._known = len(self.records())

    @classmethod
    def of_coordinator(cls, folder: ConsortiumFolder) -> "AuditWatch":
        """Watch the coordinator's log."""
        return cls(folder.audit, folder.audit_public_key())

    @classmethod
    def of_site(cls, home: Path) -> "AuditWatch":
        """Watch a hospital's log."""
        policy = load_policy(home)
        return cls(audit_path(policy), public_key(load_identity(policy.identity_key)))

    def records(self) -> list[AuditRecord]:
        """Return all lines, verified; none if there is no log yet."""
        try:
            return read_audit(self._path, self._key)
        except LedgerError:
            if self._path.exists():
                raise
            return []

    def added(self, holds: Callable[[AuditRecord], bool]) -> list[AuditRecord]:
        """Return the lines added since, of a kind; waits a while for the first."""
        deadline = time.monotonic() + LOG_S
        while True:
            records = [record for record in self.records()[self._known :] if holds(record)]
            if records or time.monotonic() > deadline:
                return records
            time.sleep(0.2)

    def where(self, event: str, code: str = "", **facts: str) -> str:
        """Return how a reader finds a line of this kind; empty if there is none."""

        def holds(record: AuditRecord) -> bool:
            record_facts = {"site": record.site, **record.facts}
            same = all(facts[name] in str(record_facts.get(name)) for name in facts)
            return record.event == event and record.code == code and same

        records = self.added(holds)
        return f"audit log, {event} {code}".strip() if records else ""
