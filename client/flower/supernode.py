"""Flower's SuperNode with short polls: between messages it sleeps a fifth of a second, not three.

Run as `python -m client.flower.supernode`, it takes the arguments of `flower-supernode`. After half
a minute without a message, or where looking takes long because line or machine are busy, it looks
less and less often, at least once a second. A message that is all there rings the relay's bell. A
relay that stops sending signs of life is given up after 20 s instead of 60, and at once when the
relay after it says so. A node whose loop has ended ends.

This leans on internal names of Flower; Flower is pinned, and a test drives the real one.
"""

from __future__ import annotations

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from client.flower.pending_task import answering_lost
from client.flower.relay_wakeup import Bell
from common.process.late_content import shorten_waits

SHORTEST_S = 0.2
LONGEST_S = 1.0
BUSY_S = 30.0
"""So long after the last message the node still looks five times a second."""

WAIT_FOR_REPLY_S = 0.02
HEARTBEAT_S = 10
SHARE = 0.125
"""Most of its time that the node spends looking."""

SECRET = "--superexec-auth-secret-file"
IDLE = 3
"""What Flower sleeps when there was no message; anything shorter is a wait for a reply."""


class ShortSleep:
    """Stands in for the module `time` inside Flower's node loop."""

    def __init__(self) -> None:
        self._last_message = time.monotonic()
        self._woke: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        """Sleep for less than Flower asks for."""
        now = time.monotonic()
        if seconds < IDLE:
            self._last_message = now
            self._woke = None  # what follows is more than a look: the reply is sent
            time.sleep(min(seconds, WAIT_FOR_REPLY_S))
            return
        look_s = now - self._woke if self._woke is not None else 0.0
        time.sleep(self.idle_s(now - self._last_message, look_s))
        self._woke = time.monotonic()

    @staticmethod
    def idle_s(quiet_s: float, look_s: float = 0.0) -> float:
        """Return the pause after so much time without a message and a look that took so long."""
        pause = max(SHORTEST_S * max(1.0, quiet_s / BUSY_S), look_s * (1 / SHARE - 1))
        return min(LONGEST_S, pause)


def ringing(pull: Callable[..., int | None], bell: Bell) -> Callable[..., int | None]:
    """Return Flower's step that fetches a message, ringing the bell when there was one."""

    def pull_and_ring(*args: Any, **options: Any) -> int | None:
        run = pull(*args, **options)
        if run is not None:
            bell.ring()
        return run

    return pull_and_ring


def main() -> None:
    """Run the SuperNode."""
    loop = import_module("flwr.supernode.start_client_internal")
    vars(loop)["time"] = ShortSleep()
    secret = _secret(sys.argv)
    if secret is not None:
        vars(loop)["_pull_and_store_message"] = ringing(loop._pull_and_store_message, Bell(secret))
    tasks = import_module("flwr.supercore.corestate.in_memory_corestate")
    vars(tasks)["HEARTBEAT_DEFAULT_INTERVAL"] = HEARTBEAT_S
    node = import_module("flwr.supernode.nodestate.in_memory_nodestate").InMemoryNodeState
    node.finish_task = answering_lost(node.finish_task)
    parts = import_module("flwr.supercore.inflatable.inflatable_utils")
    shorten_waits(parts.pull_objects, parts.pull_and_inflate_object_from_tree)
    try:
        import_module("flwr.supernode.cli.flower_supernode").flower_supernode()
    except Exception as error:
        logging.getLogger("tumorboard.supernode").error("ended: %s", type(error).__name__)
    # Its loop is over, for instance after a TLS connection broke off, but its other threads still
    # run and would say that it serves. Only a new process takes part again.
    os._exit(1)


def _secret(arguments: Sequence[str]) -> Path | None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(SECRET, type=Path, dest="secret")
    given: Path | None = parser.parse_known_args(arguments)[0].secret
    return given


if __name__ == "__main__":
    main()
