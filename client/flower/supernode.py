"""Run Flower's SuperNode with short polls: it sleeps 0.2 s between messages instead of 3 s.

Run as `python -m client.flower.supernode`, it takes the arguments of `flower-supernode`. After half
a minute without a message, or where looking takes long because line or machine are busy, it looks
less and less often, at least once a second. While it waits for a reply it rings the relay's bell.
A node whose loop has ended ends.
"""

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client.flower.flower_internals import IDLE_S, run_supernode
from client.flower.relay_wakeup import Bell

SHORTEST_S = 0.2
LONGEST_S = 1.0
BUSY_S = 30.0
"""Seconds after the last message during which the node still polls five times per second."""

WAIT_FOR_REPLY_S = 0.02
SHARE = 0.125
"""Most of its time that the node spends looking."""

SECRET = "--superexec-auth-secret-file"


class ShortSleep:
    """Stands in for the module `time` inside Flower's node loop.

    Args:
        bell: Rung while the node waits for a reply: the message is then all there.
    """

    def __init__(self, bell: Bell | None = None) -> None:
        self._bell = bell
        self._last_message = time.monotonic()
        self._woke: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        """Sleep for less than Flower asks for."""
        now = time.monotonic()
        if seconds < IDLE_S:
            if self._bell is not None:
                self._bell.ring()
            self._last_message = now
            self._woke = None  # what follows is more than a look: the reply is sent
            time.sleep(min(seconds, WAIT_FOR_REPLY_S))
            return
        look_s = now - self._woke if self._woke is not None else 0.0
        time.sleep(self.idle_s(now - self._last_message, look_s))
        self._woke = time.monotonic()

    @staticmethod
    def idle_s(quiet_s: float, look_s: float = 0.0) -> float:
        """Return the pause after some time without a message and a poll of some duration."""
        pause = max(SHORTEST_S * max(1.0, quiet_s / BUSY_S), look_s * (1 / SHARE - 1))
        return min(LONGEST_S, pause)


def main() -> None:
    """Run the SuperNode."""
    secret = _secret(sys.argv)
    try:
        run_supernode(ShortSleep(Bell(secret) if secret is not None else None))
    except Exception as error:
        logging.getLogger("tumorboard.supernode").error("ended: %s", type(error).__name__)
    # Its loop is over, for instance after a TLS connection broke off, but its other threads still
    # run and would say that it serves. Only a new process takes part again.
    os._exit(1)


def _secret(arguments: Sequence[str]) -> Path | None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(SECRET, type=Path, dest="secret")
    path: Path | None = parser.parse_known_args(arguments)[0].secret
    return path


if __name__ == "__main__":
    main()
