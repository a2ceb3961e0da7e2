"""Read the coordinator's folder for a page: certificate, roster, runs, audit log."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from common.page.audit_tail import AuditRow, audit_tail, refusals
from common.page.problem import Problem, attempt
from common.page.processes import ProcessRow, process_problems, process_rows
from common.trust.roster import Roster
from server.consortium.consortium_folder import Consortium, ConsortiumFolder
from server.consortium.provision_certificates import days_left, load_certificate
from server.flower.superlink import status_file
from server.session.run_state import STATE_FILE

SOON_DAYS = 30
SERVE_AS = "Serve this page as the coordinator's user, who may read the folder."
ROTATE = "`tumorboard server provision FOLDER --rotate`, then start the SuperLink and the proxy "
ROTATE += "again. Hospitals need nothing new."


@dataclass(frozen=True)
class ConsortiumFiles:
    """A coordinator's folder at one moment.

    Attributes:
        folder: The folder.
        consortium: Its name and addresses; None if they cannot be read.
        certificate_days: Days that the server certificate is still valid; None if unknown.
        roster: The signed roster; None if it cannot be read or is not signed.
        runs: Folders of its runs, the one last touched first.
        audit: Last lines of the audit log, newest first.
        processes: The coordinator's processes; None while `tumorboard server up` does not run.
        problems: What is wrong with them.
    """

    folder: Path
    consortium: Consortium | None
    certificate_days: float | None
    roster: Roster | None
    runs: tuple[Path, ...]
    audit: tuple[AuditRow, ...]
    processes: tuple[ProcessRow, ...] | None
    problems: tuple[Problem, ...]


def read_consortium(folder: Path, now: datetime) -> ConsortiumFiles | None:
    """Return what a coordinator's folder says, or None if it is none; never fails."""
    paths = ConsortiumFolder(folder.absolute())
    if not paths.config.is_file():
        return None
    problems: list[Problem] = []
    consortium = attempt(paths.consortium, problems, weight="warns", cure=SERVE_AS)
    roster = attempt(paths.roster, problems, weight="warns", cure=SERVE_AS)
    certificate = attempt(
        lambda: load_certificate(paths.server_cert), problems, weight="warns", cure=SERVE_AS
    )
    days = None if certificate is None else days_left(certificate, now)
    problems += [] if days is None else _expiry(days)
    audit = audit_tail(paths.audit)
    processes = process_rows(status_file(paths), {"superlink": "superlink_health"})
    return ConsortiumFiles(
        folder=folder,
        consortium=consortium,
        certificate_days=days,
        roster=roster,
        runs=_runs(paths.runs),
        audit=audit,
        processes=processes,
        problems=(*problems, *_running(processes), *refusals(audit)),
    )


def newest_run(folder: Path) -> Path:
    """Return the run a page is about: the folder itself, or the newest run of a consortium."""
    consortium = ConsortiumFolder(folder)
    if not consortium.config.is_file():
        return folder
    runs = _runs(consortium.runs)
    return runs[0] if runs else consortium.runs / "none yet"


def _runs(folder: Path) -> tuple[Path, ...]:
    try:
        folders = [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return ()
    return tuple(sorted(folders, key=_touched, reverse=True))


def _touched(run: Path) -> float:
    for file in (run / STATE_FILE, run):
        try:
            return file.stat().st_mtime
        except OSError:
            continue
    return 0.0


def _running(processes: tuple[ProcessRow, ...] | None) -> Iterator[Problem]:
    if processes is None:
        what = "The SuperLink is not running: no hospital can take part."
        yield Problem("warns", what, "`tumorboard server up FOLDER` on this machine.")
    else:
        yield from process_problems(processes)


def _expiry(days: float) -> Iterator[Problem]:
    if days <= 0:
        what = "The server certificate has expired: no hospital connects."
        yield Problem("stops", what, ROTATE, "TB522")
    elif days < SOON_DAYS:
        what = f"The server certificate is valid for {days:.0f} more days."
        yield Problem("warns", what, ROTATE, "TB522")
