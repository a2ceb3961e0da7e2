"""Starts N SuperNodes, ours or stock Flower's, runs one app over them, and measures.

Ours: TLS, node keys, proof of identity, short polls, warm relay, agents behind sockets. Stock:
Flower as it comes, without TLS or keys, which is faster than with them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml
from flwr.cli.build import build_fab_from_disk

from client.enrol_connection import SiteConnection
from client.site_folder import load_policy
from client.site_processes import site_processes
from common.atomic_file import write_text
from common.contract import sha256_hex
from common.errors import RunError
from common.free_port import free_port
from common.supervisor import Child, Supervisor
from server.flower_commands import CONNECTION, flower_environment
from server.node_enrolment import NodeEnrolment
from server.superlink import is_superlink_healthy, server_processes, status_file
from simulations.local_consortium import local_spec, make_consortium
from simulations.tcp_proxy import TcpProxy

LIMIT_S = 900.0
START_S = 60.0
_FLOWER = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
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


KINDS = {
    "flower-superlink": "SuperLink",
    "flwr-serverapp": "server app",
    "client.supernode": "SuperNode",
    "flower-supernode": "SuperNode",
    "client.relay": "relay",
    "flwr-clientapp": "client app",
    "payload_agent": "agent",
}


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


def measure_ours(root: Path, sites: int, parameters: int, rounds: int) -> Measured:
    """Return what rounds of two exchanges take over our link.

    Raises:
        RunError: It did not finish in time.
    """
    consortium = make_consortium(root, local_spec(sites, 30))
    folder = consortium.folder
    bundle = _bundle(root, "simulations.deployed.round_app:app", "client.flower_app:app")
    port = int(folder.consortium().listen.rpartition(":")[2])
    proxies = [TcpProxy(port) for _ in consortium.sites]
    children, facts = server_processes(folder)
    hospitals: list[Child] = []
    for (site_id, home), proxy in zip(consortium.sites.items(), proxies, strict=True):
        hospitals += _hospital(site_id, home, proxy.port, bundle)
    keys = {member.site_id: member.identity for member in folder.roster().admitted}
    write_text(root / "roster.json", json.dumps(keys))
    config = {"roster": str(root / "roster.json"), "parameters": parameters, "rounds": rounds}
    with _supervised(children, status_file(folder), facts):
        _until(lambda: is_superlink_healthy(folder), "the SuperLink")
        NodeEnrolment(folder).update()
        with _supervised(hospitals, root / "sites.json", {}), MemoryWatch() as memory:
            seconds = _run(root, flower_environment(folder), CONNECTION, bundle, config)
    moved = sum(proxy.up_bytes + proxy.down_bytes for proxy in proxies)
    for proxy in proxies:
        proxy.close()
    return Measured(seconds, moved / sites / rounds, dict(memory.peak_mib))


def measure_stock(root: Path, sites: int, parameters: int, rounds: int) -> Measured:
    """Return what rounds of stock Flower FedAvg take.

    Raises:
        RunError: It did not finish in time.
    """
    module = "simulations.deployed.stock_app"
    bundle = _bundle(root, f"{module}:server", f"{module}:client")
    port = free_port()
    home = {**_FLOWER, "FLWR_HOME": str(root / "flwr")}
    write_text(
        root / "flwr" / "config.toml",
        f'[superlink]\ndefault = "stock"\n[superlink.stock]\naddress = "127.0.0.1:{port}"\n'
        "insecure = true\n",
    )
    link = ["flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port)]
    link += ["--isolation", "subprocess", "--disable-runtime-dependency-installation"]
    children = [Child("superlink", link, root / "superlink.log", home)]
    proxies = [TcpProxy(port) for _ in range(sites)]
    for number, proxy in enumerate(proxies):
        node = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{proxy.port}"]
        node += ["--host", "127.0.0.1", "--port", str(free_port()), "--isolation", "subprocess"]
        children.append(Child(f"node-{number}", node, root / f"node-{number}.log", home))
    config: dict[str, object] = {"nodes": sites, "parameters": parameters, "rounds": rounds}
    with _supervised(children, root / "stock.json", {}), MemoryWatch() as memory:
        seconds = _run(root, home, "stock", bundle, config)
    moved = sum(proxy.up_bytes + proxy.down_bytes for proxy in proxies)
    for proxy in proxies:
        proxy.close()
    return Measured(seconds, moved / sites / rounds, dict(memory.peak_mib))


def _hospital(site_id: str, home: Path, port: int, bundle: Path) -> list[Child]:
    """Return SuperNode, relay and the agent that only sends numbers, behind a counting line."""
    connection = SiteConnection.of_site(home)
    told = yaml.safe_load(connection.config.read_text(encoding="utf-8"))
    write_text(connection.config, yaml.safe_dump(told | {"superlink": f"127.0.0.1:{port}"}))
    write_text(connection.allowed_bundles, sha256_hex(build_fab_from_disk(bundle)) + "\n")
    policy = load_policy(home)
    socket = policy.state.parent / "agent.sock"
    agent = [sys.executable, "-m", "simulations.deployed.payload_agent", "--site", site_id]
    agent += ["--identity", str(policy.identity_key), "--socket", str(socket)]
    relayed, _ = site_processes(home, socket=socket, agent=False)
    return [Child("agent", agent, home / "agent.log"), *relayed]


def _bundle(root: Path, server: str, client: str) -> Path:
    folder = root / "bundle"
    write_text(folder / "pyproject.toml", BUNDLE.format(server=server, client=client))
    return folder


def _run(
    root: Path,
    environment: Mapping[str, str],
    connection: str,
    bundle: Path,
    config: Mapping[str, object],
) -> list[float]:
    out, file = root / "seconds.json", root / "run-config.toml"
    told = {**config, "out": str(out)}
    write_text(file, "".join(f"{key} = {json.dumps(value)}\n" for key, value in told.items()))
    command = ["flwr", "run", str(bundle), connection, "--run-config", str(file)]
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
    _until(out.is_file, "the run", deadline - time.monotonic())
    return [float(seconds) for seconds in json.loads(out.read_text(encoding="utf-8"))]


@contextmanager
def _supervised(
    children: Sequence[Child], status: Path, facts: Mapping[str, object]
) -> Iterator[None]:
    stop = threading.Event()
    supervisor = Supervisor(children, status, facts=facts)
    thread = threading.Thread(target=supervisor.run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _until(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RunError(
                f"{what} did not come up", why=f"not within {seconds:.0f} s", cure="see the logs"
            )
        time.sleep(0.2)
