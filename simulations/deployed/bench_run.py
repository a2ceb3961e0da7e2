"""Runs one app over a SuperLink and its SuperNodes, and measures: seconds, bytes, memory."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from common.errors import RunError
from common.process.supervisor import Child, Supervisor
from common.storage.atomic_file import write_text
from simulations.deployed.tcp_proxy import TcpProxy

LIMIT_S = 900.0
START_S = 60.0
BUNDLE = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "bench-app"
version = "0.1.0"
description = "Names the apps of a benchmark."
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "tumorboard"
[tool.flwr.app.components]
serverapp = "{server}"
clientapp = "{client}"
[tool.flwr.app.config]
roster = ""
out = ""
nodes = 0
parameters = 0
rounds = 0
"""
KINDS = {
    "flower-superlink": "SuperLink",
    "guarded_superlink": "SuperLink",
    "flwr-serverapp": "server app",
    "client.flower.supernode": "SuperNode",
    "flower-supernode": "SuperNode",
    "client.flower.relay": "relay",
    "flwr-clientapp": "client app",
    "payload_agent": "agent",
}


@dataclass
class Measured:
    """What one configuration took.

    Attributes:
        seconds: Of each round.
        site_bytes: Bytes on the line of one site in a round, both ways; 0 if not counted.
        peak_mib: Kind of process -> largest resident memory of one, MiB.
    """

    seconds: list[float]
    site_bytes: float = 0.0
    peak_mib: dict[str, float] = field(default_factory=dict)


class MemoryWatch:
    """Largest resident memory of each kind of process below this one, while it runs."""

    def __init__(self) -> None:
        self.peak_mib: dict[str, float] = defaultdict(float)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            for process in psutil.Process().children(recursive=True):
                try:
                    command = " ".join(process.cmdline())
                    used = process.memory_info().rss / 2**20
                except psutil.Error:
                    continue
                for part, kind in KINDS.items():
                    if part in command:
                        self.peak_mib[kind] = max(self.peak_mib[kind], used)


def bench_bundle(root: Path, server: str, client: str) -> Path:
    """Write the bundle that names two apps and return its folder."""
    folder = root / "bundle"
    write_text(folder / "pyproject.toml", BUNDLE.format(server=server, client=client))
    return folder


def run_app(
    root: Path,
    environment: Mapping[str, str],
    connection: str,
    bundle: Path,
    config: Mapping[str, object],
    *,
    program: Sequence[str] = ("flwr",),
) -> list[float]:
    """Start a bundle's app, wait for its end and return the seconds of its rounds.

    Raises:
        RunError: It was not started, or did not finish in time.
    """
    out, file = root / "seconds.json", root / "run-config.toml"
    told = {**config, "out": str(out)}
    write_text(file, "".join(f"{key} = {json.dumps(value)}\n" for key, value in told.items()))
    command = [*program, "run", str(bundle), connection, "--run-config", str(file)]
    deadline = time.monotonic() + LIMIT_S
    while True:
        done = subprocess.run(
            command,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode == 0:
            break
        if time.monotonic() > deadline - LIMIT_S + START_S:
            raise RunError("the benchmark's app was not started", why=done.stdout + done.stderr)
        time.sleep(1.0)
    wait_until(out.is_file, "the run", deadline - time.monotonic())
    return [float(seconds) for seconds in json.loads(out.read_text(encoding="utf-8"))]


@contextmanager
def supervised(
    children: Sequence[Child], status: Path, facts: Mapping[str, object]
) -> Iterator[None]:
    """Keep processes running while the block runs."""
    stop = threading.Event()
    supervisor = Supervisor(children, status, facts=facts)
    thread = threading.Thread(target=supervisor.run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    """Wait for a condition.

    Raises:
        RunError: It did not come true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RunError(
                f"{what} did not come up", why=f"not within {seconds:.0f} s", cure="see the logs"
            )
        time.sleep(0.2)


def bytes_a_round(proxies: Sequence[TcpProxy], rounds: int) -> float:
    """Close counting lines and return the bytes of one site in a round, both ways."""
    moved = sum(proxy.up_bytes + proxy.down_bytes for proxy in proxies)
    for proxy in proxies:
        proxy.close()
    return moved / len(proxies) / rounds
