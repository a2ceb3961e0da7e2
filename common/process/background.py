"""Start a `tumorboard` command in the background, and return once it is ready.

A child whose own error a restart cannot fix ends the start at once: that error is shown, once, in
its own words, and nothing is left running. So does a child that ends again and again.
"""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError, TumorboardError, error_in
from common.process.supervisor import read_supervised, stop_supervised

LOOK_S = 0.3
MOST_ENDS = 3
"""Number of times a child may end before all is ready."""

SHOWN_LINES = 8
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ENTRY = "from common.commands.cli import main; main()"


@dataclass(frozen=True)
class BackgroundStart:
    """A command to be started.

    Attributes:
        arguments: The command with its arguments, without `tumorboard`.
        log: What the command itself prints; its children log beside it.
        status: Status file of its supervisor.
        is_ready: Asked until it is true.
        ready_s: Seconds to wait at most.
        failed: What to say when it does not become ready.
    """

    arguments: Sequence[str]
    log: Path
    status: Path
    is_ready: Callable[[], bool]
    ready_s: float
    failed: str

    def run(self) -> None:
        """Start it; returns when it is ready.

        Raises:
            TumorboardError: The command's own error, or that of one of its children.
            ConfigError: A child ends again and again, or it is not ready in time.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        earlier = {file: file.stat().st_size for file in self.log.parent.glob("*.log")}
        with self.log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-c", _ENTRY, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        try:
            self._wait(process, earlier)
        finally:
            process.returncode = 0  # it goes on by itself: nobody will ask how it ended

    def _wait(self, process: subprocess.Popen[bytes], earlier: Mapping[Path, int]) -> None:
        deadline = time.monotonic() + self.ready_s
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise self._error_in(self.log, 0) or self._end_of_log(self.log, 0)
            if self.is_ready():
                return
            error = self._child_error(earlier)
            if error is not None:
                stop_supervised(self.status)
                raise error
            time.sleep(LOOK_S)
        raise ConfigError(
            self.failed,
            where=str(self.log.parent),
            why=f"not ready within {self.ready_s:.0f} s",
            cure="see the logs there; the processes keep running and may still become ready",
        )

    def _child_error(self, earlier: Mapping[Path, int]) -> TumorboardError | None:
        """Return why a child cannot run, once it has ended; None as long as there is hope."""
        running = read_supervised(self.status)
        for child in running.children.values() if running else ():
            log, ends = Path(str(child["log"])), int(str(child["restarts"]))
            error = self._error_in(log, earlier.get(log, 0)) if ends else None
            if error is not None:
                return error
            if ends >= MOST_ENDS:
                return self._end_of_log(log, earlier.get(log, 0))
        return None

    def _error_in(self, log: Path, start: int) -> TumorboardError | None:
        return error_in(_text(log, start))

    def _end_of_log(self, log: Path, start: int) -> ConfigError:
        lines = [line for line in _text(log, start).splitlines() if line.strip()]
        return ConfigError(
            self.failed,
            where=str(log),
            why="\n         ".join(["its log ends:", *lines[-SHOWN_LINES:]]),
            cure="fix what the log reports and run the same command again",
        )


def _text(log: Path, start: int) -> str:
    """Return what a log holds behind a position; all of it if it was started again."""
    try:
        raw = log.read_bytes()
    except FileNotFoundError:
        return ""
    text = raw[start if len(raw) >= start else 0 :].decode(errors="replace")
    return _COLOUR.sub("", text)
