"""Flower's SuperNode with short polls: between messages it sleeps a fifth of a second, not three.

Run as `python -m client.supernode`, it takes the arguments of `flower-supernode`. After half a
minute without a message it looks less and less often, at most once a second. A relay that stops
sending signs of life is given up after 20 s instead of 60. A node whose loop has ended ends.

This leans on internal names of Flower; Flower is pinned, and a test drives the real one.
"""

from __future__ import annotations

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

import logging
import time
from importlib import import_module
from typing import Any

from client.flower_waits import shorten_waits

SHORTEST_S = 0.2
LONGEST_S = 1.0
BUSY_S = 30.0
"""So long after the last message the node still looks five times a second."""

WAIT_FOR_REPLY_S = 0.02
HEARTBEAT_S = 10
IDLE = 3
"""What Flower sleeps when there was no message; anything shorter is a wait for a reply."""


class ShortSleep:
    """Stands in for the module `time` inside Flower's node loop."""

    def __init__(self) -> None:
        self._last_message = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        """Sleep for less than Flower asks for."""
        if seconds < IDLE:
            self._last_message = time.monotonic()
            time.sleep(min(seconds, WAIT_FOR_REPLY_S))
            return
        time.sleep(self.idle_s(time.monotonic() - self._last_message))

    @staticmethod
    def idle_s(quiet_s: float) -> float:
        """Return the pause after so many seconds without a message."""
        return min(LONGEST_S, SHORTEST_S * max(1.0, quiet_s / BUSY_S))


def main() -> None:
    """Run the SuperNode."""
    loop = import_module("flwr.supernode.start_client_internal")
    vars(loop)["time"] = ShortSleep()
    tasks = import_module("flwr.supercore.corestate.in_memory_corestate")
    vars(tasks)["HEARTBEAT_DEFAULT_INTERVAL"] = HEARTBEAT_S
    shorten_waits()
    try:
        import_module("flwr.supernode.cli.flower_supernode").flower_supernode()
    except Exception as error:
        logging.getLogger("tumorboard.supernode").error("ended: %s", type(error).__name__)
    # Its loop is over, for instance after a TLS connection broke off, but its other threads still
    # run and would say that it serves. Only a new process takes part again.
    os._exit(1)


if __name__ == "__main__":
    main()
