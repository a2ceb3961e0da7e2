"""Run one app over a SuperLink and its SuperNodes, and measure seconds, bytes and memory."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import psutil

from common.errors import RunError
from common.process.supervisor import Child, Supervisor
from common.storage.atomic_file import write_text
from simulations.deployed.tcp_proxy import TcpProxy

LIMIT_S = 900.0
SHOWN_LINES = 6
"""How many last lines of each log an error shows."""

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
"""
OPTIONS = ("roster", "out", "nodes", "parameters", "rounds")
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

    def __enter__(self) -> "MemoryWatch":
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


def bench_bundle(root: Path, server: str, client: str, *, options: Iterable[str] = OPTIONS) -> Path:
    """Write the bundle that names two apps and the options of a run; return its folder."""
    folder = root / "bundle"
    text = BUNDLE.format(server=server, client=client)
    write_text(folder / "pyproject.toml", text + "".join(f'{name} = ""\n' for name in options))
    return folder


def run_app(
    root: Path, start: Callable[[Mapping[str, str]], object], config: Mapping[str, object]
) -> list[float]:
    """Start an app, wait for its end and return the seconds of its rounds.

    Args:
        root: Folder of this measurement, with its logs.
        start: Starts the app with a run configuration.
        config: The run configuration; `out` is added.

    Raises:
        RunError: It was not started, or did not finish in time.
    """
    out = root / "seconds.json"
    start({name: str(value) for name, value in {**config, "out": out}.items()})
    wait_until(out.is_file, "the run", LIMIT_S, logs=root)
    return [float(seconds) for seconds in json.loads(out.read_text(encoding="utf-8"))]


@contextmanager
def supervised(
    children: Sequence[Child], status: Path, facts: Mapping[str, object] = MappingProxyType({})
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


def wait_until(
    condition: Callable[[], bool], what: str, seconds: float = 120.0, *, logs: Path | None = None
) -> None:
    """Wait for a condition.

    Args:
        condition: Asked again and again; a `RunError` of it counts as not yet.
        what: What is waited for.
        seconds: How long.
        logs: Folder whose logs the error quotes.

    Raises:
        RunError: It did not come true in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        why = f"not within {seconds:.0f} s"
        try:
            if condition():
                return
        except RunError as error:
            why += f"; {error}"
        if time.monotonic() > deadline:
            raise RunError(
                f"{what} did not come up",
                why="\n".join([why, *(log_ends(logs) if logs else ())]),
                cure="fix what the log lines report" if logs else "see the logs",
            )
        time.sleep(0.2)


def log_ends(folder: Path) -> Iterator[str]:
    """Yield the last lines of every log below a folder."""
    for log in sorted(folder.rglob("*.log")):
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        yield f"{log.relative_to(folder)} ends:"
        yield from (f"    {line}" for line in lines[-SHOWN_LINES:])


def bytes_a_round(proxies: Sequence[TcpProxy], rounds: int) -> float:
    """Close counting lines and return the bytes of one site in a round, both ways."""
    total = sum(proxy.up_bytes + proxy.down_bytes for proxy in proxies)
    for proxy in proxies:
        proxy.close()
    return total / len(proxies) / rounds
