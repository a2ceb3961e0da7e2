"""Read the current state of a hospital from its files and its agent; nothing is changed.

The agent appends to the ledger while the page reads. A line that is there before its head file,
or a head file that is newer than what was just read, looks like damage for a moment; only what
stays is shown.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from client.agent.accepted_run import AcceptedRun
from client.agent.log_files import audit_path
from client.agent.socket_call import AgentRefusalError, call_agent
from client.site.enrol_connection import SiteConnection
from client.site.ledger_view import LedgerView, add_up
from client.site.site_disks import full_disks
from client.site.site_folder import load_policy
from common.commands.doctor import Finding
from common.errors import TumorboardError
from common.ledger.ledger_entry import LedgerRecord
from common.ledger.ledger_file import read_ledger
from common.page.audit_tail import AuditRow, audit_tail
from common.page.problem import Problem, Read, attempt
from common.page.processes import ProcessRow, process_rows
from common.protocol.protocol import StatusReply, StatusRequest
from common.study.site_policy import SitePolicy
from common.study.study import Study
from common.trust.connection import Connection

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


AGENT_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class SiteFiles:
    """A hospital at one moment.

    Attributes:
        folder: Its folder or `site.yaml`, as named.
        policy: Its rules; None if they cannot be read.
        studies: Digest -> study, of the runs it took part in.
        runs: Run -> digest of its study.
        ledger: Its ledger.
        agent: What its agent is doing; None if it does not answer.
        audit: Last lines of its audit log, newest first.
        processes: What `tumorboard site join` runs; None while it does not.
        connection: The consortium it installed a kit of; None if there is none.
        disks: Places of the agent without room.
        problems: What cannot be read.
    """

    folder: Path
    policy: SitePolicy | None = None
    studies: Mapping[str, Study] = field(default_factory=dict)
    runs: Mapping[str, str] = field(default_factory=dict)
    ledger: LedgerReading = field(default_factory=LedgerReading)
    agent: StatusReply | None = None
    audit: tuple[AuditRow, ...] = ()
    processes: tuple[ProcessRow, ...] | None = None
    connection: Connection | None = None
    disks: tuple[Finding, ...] = ()
    problems: tuple[Problem, ...] = ()


def read_site_files(folder: Path, reader: LedgerReader, socket: Path | None = None) -> SiteFiles:
    """Return what a hospital's files and agent say; never fails.

    Args:
        folder: The folder of its site.yaml.
        reader: Reads its ledger.
        socket: The agent's socket; the default place if None.
    """
    problems: list[Problem] = []
    policy = _attempt(lambda: load_policy(folder), problems)
    if policy is None:
        return SiteFiles(folder, problems=tuple(problems))
    runs = _accepted_runs(policy, problems)
    ledger = reader.read(policy)
    return SiteFiles(
        folder=folder,
        policy=policy,
        studies=_studies(runs),
        runs={run.run_id: run.study_digest for run in runs},
        ledger=ledger,
        audit=audit_tail(audit_path(policy)),
        processes=process_rows(
            policy.state.parent / "node" / "processes.json", {"supernode": "supernode_health"}
        ),
        connection=_attempt(lambda: _connection(folder), problems),
        agent=ask_agent(socket or default_socket(policy)),
        disks=tuple(full_disks(policy, socket or default_socket(policy))),
        problems=(*([ledger.problem] if ledger.problem else []), *problems),
    )


def default_socket(policy: SitePolicy) -> Path:
    """Return where the site agent listens by default."""
    return policy.state.parent / "agent.sock"


def ask_agent(socket: Path) -> StatusReply | None:
    """Return what the agent is doing, or None if it does not answer."""
    try:
        if not socket.is_socket():
            return None
        request = StatusRequest().encode()
        answer = call_agent(socket, "status", *request, timeout_s=AGENT_TIMEOUT_S)
        return StatusReply.decode(*answer)
    except (AgentRefusalError, TumorboardError, OSError):
        return None


def _connection(folder: Path) -> Connection | None:
    site_connection = SiteConnection.of_site(folder)
    return site_connection.connection() if site_connection.is_installed else None


def _accepted_runs(policy: SitePolicy, problems: list[Problem]) -> list[AcceptedRun]:
    runs = []
    for path in sorted((policy.state / "runs").glob("*.json")):
        try:
            runs.append(AcceptedRun.model_validate_json(path.read_text(encoding="utf-8")))
        except FileNotFoundError:  # being replaced
            continue
        except (OSError, ValidationError, UnicodeDecodeError):
            what = "The record of an accepted run cannot be read."
            cure = "Restore it from backup, or remove it: the server repeats the handshake."
            problems.append(Problem("warns", what, cure, where=path.name))
    return runs


def _studies(runs: list[AcceptedRun]) -> dict[str, Study]:
    studies = {}
    for run in runs:
        if run.study_digest not in studies:
            try:
                studies[run.study_digest] = Study.model_validate_json(run.study_json)
            except ValidationError:  # of another version; its digest still names it
                continue
    return studies


def _attempt(read: Callable[[], Read], problems: list[Problem]) -> Read | None:
    what = "The hospital's files cannot be read"
    cure = "Serve this page as the user of the site agent, who may read the private folder."
    return attempt(read, problems, weight="stops", cure=cure, what=what)
