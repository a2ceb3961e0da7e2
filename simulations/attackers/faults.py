"""Kill processes of a running consortium, at random and without warning."""

import os
import random
import signal
import time
from contextlib import suppress

import psutil

from client.operate.site_processes import SitePaths
from common.process.supervisor import read_supervised
from server.flower.superlink import running_server
from server.operate.run_folder import RunFolder
from simulations.consortium.local_consortium import LocalConsortium

SERVER_APP = "flwr-serverapp"


class FaultInjector:
    """Chooses victims among all processes of a consortium.

    Args:
        consortium: The consortium, up and joined.
        seed: Seed of the choice and of the moments.
    """

    def __init__(self, consortium: LocalConsortium, seed: int) -> None:
        self._consortium = consortium
        self._random = random.Random(seed)
        self._deck: list[str] = []
        self.killed: dict[str, int] = {}

    @property
    def count(self) -> int:
        """Kills so far."""
        return sum(self.killed.values())

    def victims(self) -> dict[str, list[int]]:
        """Return kind of process -> process ids."""
        processes: dict[str, list[int]] = {"superlink": [], "server app": []}
        server = running_server(self._consortium.folder)
        for name, child in (server.children if server else {}).items():
            pid = child["pid"]
            if not isinstance(pid, int):
                continue
            if name == "superlink":
                processes["superlink"].append(pid)
            else:
                processes["server app"] += _below(pid, SERVER_APP)
        for home in self._consortium.sites.values():
            site = read_supervised(SitePaths.of(home).status)
            for name, child in (site.children if site else {}).items():
                if isinstance(child["pid"], int):
                    processes.setdefault(name, []).append(child["pid"])
        return {kind: pids for kind, pids in processes.items() if pids}

    def kill_one(self) -> str:
        """Kill one process and return its kind; every kind has its turn, in random order."""
        victims = self.victims()
        if not victims:
            return ""
        if not any(kind in victims for kind in self._deck):
            self._deck = self._random.sample(sorted(victims), len(victims))
        kind = next(kind for kind in self._deck if kind in victims)
        self._deck.remove(kind)
        with suppress(ProcessLookupError):
            os.kill(self._random.choice(victims[kind]), signal.SIGKILL)
            self.killed[kind] = self.killed.get(kind, 0) + 1
        return kind

    def kill_until_ended(
        self, run: RunFolder, *, pause_s: tuple[float, float], most: int, limit_s: float
    ) -> None:
        """Kill again and again while a run continues, then wait for its end.

        Args:
            run: The run.
            pause_s: Shortest and longest pause between two kills.
            most: Kills in this run at most.
            limit_s: Seconds after which to give up waiting.
        """
        deadline, kills = time.monotonic() + limit_s, 0
        while run.is_requested and time.monotonic() < deadline:
            time.sleep(self._random.uniform(*pause_s))
            state = run.state()
            if kills < most and run.is_requested and state is not None:
                kills += bool(self.kill_one())


def _below(pid: int, name: str) -> list[int]:
    try:
        children = psutil.Process(pid).children(recursive=True)
        return [child.pid for child in children if name in " ".join(child.cmdline())]
    except psutil.Error:
        return []
