"""Run the coordinator's processes, and keep requested runs going, also after interruptions.

A run is started again when nobody holds its folder and it has not ended by itself; it continues
after the last committed round. A run that ended with a reason (done, failed, stopped) is left.
"""

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from common.commands.cli_output import Output
from common.errors import ErrorCode, RunError, TumorboardError
from common.process.background import BackgroundStart
from common.process.stop_signals import stop_on_signals
from common.process.supervisor import Supervisor, check_not_running
from server.consortium.consortium_folder import ConsortiumFolder
from server.consortium.provision import audit_log
from server.flower.flower_commands import registered_nodes, start_run
from server.flower.node_enrolment import NodeEnrolment
from server.flower.superlink import is_superlink_healthy, server_processes, status_file
from server.operate.run_folder import ENDED, RunFolder, all_runs

LOOK_S = 1.0
READY_S = 90.0
START_S = 90.0
"""Seconds in which a started run must take its folder before it counts as lost."""

MAX_STARTS = 8
"""Starts without a newly committed round before a run is abandoned."""

LONGEST_PAUSE_S = 30.0
_log = logging.getLogger("tumorboard.server")


@dataclass
class _RunRecord:
    """What is known about a run that is kept going."""

    starts: int = 0
    round: int = -1
    not_before: float = 0.0
    waiting_until: float = 0.0
    state_at_start: float = 0.0


class RunKeeper:
    """Looks after nodes and runs while `tumorboard server up` runs."""

    def __init__(self, folder: ConsortiumFolder) -> None:
        self._folder = folder
        self._nodes = NodeEnrolment(folder)
        self._kept: dict[str, _RunRecord] = {}
        self._said = ""

    def run(self, stop: threading.Event) -> None:
        """Look after everything until `stop` is set."""
        while not stop.wait(LOOK_S):
            try:
                if is_superlink_healthy(self._folder):
                    self._nodes.update()
                    self._look_after_all()
                self._said = ""
            except TumorboardError as error:
                self._tell(error)
                stop.wait(2.0)

    def _tell(self, error: TumorboardError) -> None:
        """Log a problem once; a roster that was altered goes to the audit log too."""
        if str(error) == self._said:
            return
        self._said = str(error)
        _log.error("%s", error)
        if error.code == ErrorCode.ROSTER:
            with suppress(TumorboardError, OSError):  # a full disk must not end the keeper
                audit_log(self._folder).append("roster_refused", code=str(error.code))

    def _look_after_all(self) -> None:
        requested = {run.name: run for run in all_runs(self._folder) if run.is_requested}
        self._kept = {name: self._kept.get(name, _RunRecord()) for name in requested}
        errors = []
        for run in requested.values():
            try:
                self.look_after(run, time.monotonic())
            except TumorboardError as error:  # the other runs must not wait for this one
                errors.append(error)
        if errors:
            raise errors[0]

    def look_after(self, run: RunFolder, now: float) -> None:
        """Start a wanted run if nobody runs it.

        Raises:
            RunError: Flower does not take it, or its state is damaged.
        """
        record = self._kept.setdefault(run.name, _RunRecord())
        changed_at = run.changed_at  # before the lock: a server app takes that, then writes
        if run.is_held:
            record.waiting_until = 0.0
            return
        if now < record.waiting_until and changed_at == record.state_at_start:
            return  # on its way
        state = run.state()
        has_ended = state is not None and state.phase in ENDED and not _is_lost(state.reason)
        if has_ended and (record.starts or (state is not None and state.phase == "done")):
            run.cancel_request()
            self._kept.pop(run.name)
            return
        if now < record.not_before:
            return
        last_round = state.round if state is not None else 0
        record.starts = record.starts + 1 if last_round <= record.round else 1
        record.round = last_round
        if record.starts > MAX_STARTS:
            self._give_up(run)
            return
        record.not_before = now + min(2.0**record.starts, LONGEST_PAUSE_S)
        config = {"study": str(run.study_file), "run-dir": str(run.path)}
        run.note_flower_run(start_run(self._folder, config))
        record.state_at_start = run.changed_at
        record.waiting_until = now + START_S

    def _give_up(self, run: RunFolder) -> None:
        run.cancel_request()
        self._kept.pop(run.name)
        state = run.state()
        if state is not None:
            reason = f"{ErrorCode.TRANSPORT}: given up after {MAX_STARTS} starts without progress"
            state.model_copy(update={"phase": "failed", "reason": reason}).save(run.path)


def _is_lost(reason: str | None) -> bool:
    """Return whether a run ended because Flower was missing, not for a reason of its own."""
    return (reason or "").startswith(str(ErrorCode.TRANSPORT))


def serve(folder: ConsortiumFolder, output: Output) -> None:
    """Run everything until SIGTERM or SIGINT.

    Raises:
        ConfigError: It runs already, or a file of the consortium is missing.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    children, facts = server_processes(folder)
    stop = stop_on_signals()
    keeper = threading.Thread(target=RunKeeper(folder).run, args=(stop,), daemon=True)
    supervisor = Supervisor(children, status_file(folder), facts=facts)
    output.say(f"Starting the SuperLink; logs in {folder.superlink}")

    def ready() -> None:
        output.say(f"Serving at {folder.consortium().listen}. Interrupt to end.")
        keeper.start()

    supervisor.run(stop, ready=ready)


def serve_in_background(folder: ConsortiumFolder) -> None:
    """Start `tumorboard server up` on its own; returns when it serves and knows all hospitals.

    Raises:
        TumorboardError: It cannot run, in its own words, or does not serve in time.
    """
    check_not_running(status_file(folder))
    BackgroundStart(
        arguments=["server", "up", str(folder.root)],
        log=folder.superlink / "up.log",
        status=status_file(folder),
        is_ready=lambda: is_superlink_healthy(folder) and _knows_all(folder),
        ready_s=READY_S,
        failed="the SuperLink does not serve",
    ).run()


def _knows_all(folder: ConsortiumFolder) -> bool:
    try:
        nodes = registered_nodes(folder)
    except RunError:  # its health service answers a moment before it does
        return False
    return all(member.node_key in nodes for member in folder.roster().admitted)
