"""Keep the processes of one side running: start, watch, restart and end them.

What runs is written to a status file, so that `status` commands need not ask anybody. The
supervisor holds a lock beside it: as long as the lock is held the file is true. Children end
with the supervisor, even when it is killed.
"""

import ctypes
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import ConfigError
from common.storage.atomic_file import write_text
from common.storage.file_lock import held_alone, is_held

POLL_S = 0.2
STEADY_S = 60.0
"""A child that lived this long is restarted at once; others wait longer each time."""

LONGEST_PAUSE_S = 30.0
STOP_S = 15.0
"""Seconds a child gets to end by itself."""

LARGEST_LOG = 20 * 1024 * 1024
KEEPS_BUFFERS = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
"""Lets glibc reuse the buffers of a large model. Otherwise each of 100 MB is given back to the
kernel and its pages are zeroed again: a third of the processor time of a round of 25 M parameters.
"""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Child:
    """A process to keep running.

    Attributes:
        name: Name in status and log.
        command: Program and arguments; no secret may stand here.
        log: Where its output goes.
        environment: Added to this process's own.
        is_healthy: Asked by `status`; None where there is nothing to ask.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    is_healthy: Callable[[], bool] | None = None


@dataclass
class _Running:
    """A child and its history."""

    child: Child
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    due: float = 0.0
    restarts: int = 0
    failures: int = 0
    exit_status: int | None = None


class Supervisor:
    """Runs some processes until it is stopped.

    Args:
        children: In the order of their start; they are ended in reverse.
        status: File that says what runs.
        facts: Further facts for that file, e.g. addresses.
    """

    def __init__(
        self, children: Sequence[Child], status: Path, *, facts: Mapping[str, object] | None = None
    ) -> None:
        self._running = [_Running(child) for child in children]
        self._status = status
        self._facts = dict(facts or {})

    def run(self, stop: threading.Event, *, ready: Callable[[], None] | None = None) -> None:
        """Keep the children running until `stop` is set, then end them.

        Args:
            stop: Set by a signal handler.
            ready: Called once, when all children were healthy for the first time.

        Raises:
            ConfigError: Another supervisor holds the status file, or a program is missing.
        """
        with held_alone(_lock_path(self._status), _runs_already(self._status)):
            try:
                while not stop.wait(POLL_S):
                    changes = [self._look_after(running) for running in self._running]
                    if any(changes):
                        self._write()
                    if ready is not None and self._all_healthy():
                        ready()
                        ready = None
            finally:
                self._end()
                self._status.unlink(missing_ok=True)

    def _look_after(self, running: _Running) -> bool:
        now = time.monotonic()
        if running.process is None:
            if now < running.due:
                return False
            running.process, running.started = start_child(running.child), now
            return True
        exit_status = running.process.poll()
        if exit_status is None:
            return False
        running.exit_status = exit_status
        steady = now - running.started > STEADY_S
        running.failures = 0 if steady else running.failures + 1
        running.due = now + (0.0 if steady else min(0.25 * 2**running.failures, LONGEST_PAUSE_S))
        running.process = None
        running.restarts += 1
        return True

    def _all_healthy(self) -> bool:
        return all(
            r.process is not None and (r.child.is_healthy is None or r.child.is_healthy())
            for r in self._running
        )

    def _write(self) -> None:
        children = {
            r.child.name: {
                "pid": r.process.pid if r.process else None,
                "restarts": r.restarts,
                "last_exit": r.exit_status,
                "log": str(r.child.log),
            }
            for r in self._running
        }
        facts = {"pid": os.getpid(), "children": children, **self._facts}
        write_text(self._status, json.dumps(facts, indent=1, sort_keys=True))

    def _end(self) -> None:
        for running in reversed(self._running):
            end_process(running.process, STOP_S)


@dataclass(frozen=True)
class Supervised:
    """What a status file says.

    Attributes:
        pid: Process of the supervisor.
        children: Name -> pid (or None), restarts, last_exit, log.
        facts: Further facts.
    """

    pid: int
    children: dict[str, dict[str, object]]
    facts: dict[str, object]


def read_supervised(status: Path) -> Supervised | None:
    """Return what runs, or None if no supervisor is alive there."""
    return _parse(status) if is_held(_lock_path(status)) else None


def stop_supervised(status: Path, *, timeout_s: float = 60.0) -> bool:
    """Ask a supervisor to end its children and itself; return whether it has.

    True also if none was alive.
    """
    deadline = time.monotonic() + timeout_s
    has_asked = False
    while time.monotonic() < deadline:
        supervised = read_supervised(status)
        if supervised is None:
            if not has_asked or not status.exists():
                return True
        elif not has_asked:
            os.kill(supervised.pid, signal.SIGTERM)
            has_asked = True
        time.sleep(POLL_S)
    return False


def end_supervised(status: Path) -> bool:
    """End a supervisor and its children; return whether any ran.

    Raises:
        ConfigError: They do not end.
    """
    was_running = read_supervised(status) is not None
    if not stop_supervised(status):
        raise ConfigError(
            "the processes did not end within a minute",
            where=str(status),
            cure="run the same command again, or end the process it names",
        )
    return was_running


def end_process(process: subprocess.Popen[bytes] | None, timeout_s: float) -> None:
    """End a process and its group: politely first, then without asking."""
    if process is None or process.poll() is not None:
        return
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout_s)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def start_child(child: Child) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own; what it prints is added to its log."""
    child.log.parent.mkdir(parents=True, exist_ok=True)
    if child.log.exists() and child.log.stat().st_size > LARGEST_LOG:
        child.log.replace(child.log.with_name(f"{child.log.name}.1"))
    with child.log.open("ab") as log:
        try:
            return subprocess.Popen(
                list(child.command),
                env={**KEEPS_BUFFERS, **os.environ, **child.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        except OSError as error:
            raise ConfigError(
                f"{child.name} cannot be started",
                where=str(child.command[0]),
                why=str(error),
                cure="install tumorboard with all it needs in this environment",
            ) from None


def end_with_parent() -> None:
    """Let the kernel end this child when its parent dies (Linux); for `preexec_fn`."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def check_not_running(status: Path) -> None:
    """Refuse if a supervisor holds the status file; to be asked before anything is written.

    Raises:
        ConfigError: It runs already.
    """
    if read_supervised(status) is not None:
        raise _runs_already(status)


def _runs_already(status: Path) -> ConfigError:
    return ConfigError(
        "it is running already",
        where=str(status),
        cure="see its state with `status`, or end it first",
    )


def _lock_path(status: Path) -> Path:
    return status.with_name(f"{status.name}.lock")


def _parse(status: Path) -> Supervised | None:
    try:
        facts = json.loads(status.read_text(encoding="utf-8"))
        return Supervised(int(facts.pop("pid")), dict(facts.pop("children")), facts)
    except (OSError, ValueError, KeyError):
        return None
