"""Open a run for one process: study, link to the sites, folder and state."""

import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.commands.cli_output import Output
from common.errors import ErrorCode, RunError
from common.privacy.plan import Release
from common.process.event_log import event as log_event
from common.storage.atomic_file import write_text
from common.storage.file_lock import held_alone
from common.study.private_round import collusion_of
from common.study.study import Study
from common.trust.audit_log import AuditLog
from common.trust.audit_record import Fact
from common.trust.provenance import code_digest
from common.trust.roster import SignedRoster
from server.consortium.consortium_folder import ConsortiumFolder, consortium_of_run
from server.consortium.provision import audit_log
from server.session.run_state import RunState, load_run_state
from server.session.site_link import SiteLink


class RunJournal:
    """Writes the events of one run to the audit log, and to the structured log if one is open.

    A run in the folder of a consortium is logged there, signed and chained; a simulation has no
    audit log and writes none.

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


LOCK_FILE = "lock"
"""Held by the process that has the run open."""

STOP_FILE = "stop"
"""A file of this name in the folder of a run ends it after the round in flight."""

SILENT_ROUNDS = 2
"""After this many silent rounds in a row a site is asked, but no longer waited for."""


@dataclass
class RunSession:
    """What every step of a run needs.

    Attributes:
        study: The frozen study.
        link: Way to the sites.
        run_dir: Folder of the run.
        state: Last state written.
        output: Where progress is shown.
        journal: The coordinator's audit log.
        consortium: The coordinator's folder; None in a simulation.
        roster: The last good roster of this run; None before the first look, or in a simulation.
        roster_refused: Whether the present one was altered, or is older, at the last look.
        silent: Rounds in a row that a site did not answer.
    """

    study: Study
    link: SiteLink
    run_dir: Path
    state: RunState
    output: Output
    journal: RunJournal
    consortium: ConsortiumFolder | None = None
    roster: SignedRoster | None = None
    roster_refused: bool = False
    silent: dict[str, int] = field(default_factory=dict)

    def record(self, state: RunState) -> None:
        """Write a changed state durably and make it the current one."""
        if state != self.state:
            state.save(self.run_dir)
            self.state = state

    def enter(self, **changes: object) -> None:
        """Write the state with some fields changed."""
        self.record(self.state.model_copy(update=changes))

    def note_answer(self, site_id: str) -> None:
        """Note that a site answered, even with a refusal."""
        self.silent.pop(site_id, None)

    def note_silence(self, site_id: str) -> None:
        """Note that a site was silent in this round."""
        self.silent[site_id] = self.silent.get(site_id, 0) + 1

    @property
    def away(self) -> frozenset[str]:
        """Sites that are asked but not waited for."""
        return frozenset(s for s, rounds in self.silent.items() if rounds >= SILENT_ROUNDS)

    def needed_of(self, site_ids: Collection[str]) -> int:
        """Return how many of the asked sites must answer for the quorum.

        Enrolled sites that are not asked have answered before.
        """
        plan = self.study.privacy
        quorum = self.study.quorum.min_sites
        if plan.mode == "distributed":
            quorum = max(quorum, collusion_of(self.study).n_min)
        return max(0, quorum - (len(self.state.enrolled) - len(site_ids)))

    @property
    def release(self) -> Release:
        """`internal` only if the study asks for it and every enrolled site allows it."""
        if self.study.privacy.evaluation.release == "dp":
            return "dp"
        sites = [self.state.sites[site_id] for site_id in self.state.enrolled]
        return "internal" if all(site.release == "internal" for site in sites) else "dp"

    def note_presence(self) -> None:
        """Note in the state which sites can be reached now; written with the next change."""
        here = frozenset(self.link.site_ids())
        for site_id in self.state.sites:
            self.state = self.state.with_site(site_id, online=site_id in here)

    def check_stop(self) -> None:
        """End the run here if the coordinator has requested it.

        Raises:
            RunError: With code STOPPED.
        """
        if (self.run_dir / STOP_FILE).exists():
            raise RunError(
                "the coordinator stopped the run",
                where=self.state.run_id,
                cure="`tumorboard server resume` continues after the last committed round",
                code=ErrorCode.STOPPED,
            )

    @property
    def checkpoints(self) -> Path:
        """Folder of the committed rounds."""
        return self.run_dir / "checkpoints"


@contextmanager
def open_session(
    study: Study, link: SiteLink, run_dir: Path, output: Output
) -> Iterator[RunSession]:
    """Open or continue the run in `run_dir`; one process at a time.

    Raises:
        RunError: Another process holds the run, or the folder holds a run of another study or of
            another version of the code.
    """
    busy = RunError(
        "another process is running this study",
        where=str(run_dir),
        why="two servers would write the same checkpoints",
        cure="stop it, or choose another folder",
    )
    with held_alone(run_dir / LOCK_FILE, busy):
        state = _open_state(study, run_dir)
        journal = open_journal(run_dir, state.run_id)
        consortium = consortium_of_run(run_dir)
        yield RunSession(study, link, run_dir, state, output, journal, consortium)


def _open_state(study: Study, run_dir: Path) -> RunState:
    state = load_run_state(run_dir)
    if state is None:
        return _new_state(study, run_dir)
    if state.study_digest != study.digest():
        raise RunError(
            "the folder holds a run of another study",
            where=str(run_dir),
            why=f"run {state.study_digest[:12]}, study {study.digest()[:12]}",
            cure="continue with the study.json in that folder, or choose an empty folder",
            code=ErrorCode.STUDY_DIGEST,
        )
    if state.code_digest != code_digest() and state.phase != "done":
        what = "the run was started with other code"
        failure = {"phase": "failed", "reason": f"{ErrorCode.CODE_DIGEST}: {what}"}
        state.model_copy(update=failure).save(run_dir)  # nobody else would tell the follower
        raise RunError(
            what,
            where=str(run_dir),
            why="what was trained by two versions is reproduced by neither",
            cure="install the version that started it, or start again in an empty folder",
            code=ErrorCode.CODE_DIGEST,
        )
    return state


def _new_state(study: Study, run_dir: Path) -> RunState:
    write_text(run_dir / "study.json", study.model_dump_json(indent=1))
    state = RunState(
        run_id=f"{study.study_id[:40]}-{secrets.token_hex(6)}",
        study_digest=study.digest(),
        code_digest=code_digest(),
        rounds=study.training.rounds,
    )
    state.save(run_dir)
    return state
