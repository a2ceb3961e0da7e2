"""Measure rounds of stock Flower FedAvg: as it comes, and as a consortium would have to run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from client.site.identity import node_key_path
from client.site.site_folder import load_policy
from common.errors import RunError
from common.process.free_port import free_port
from common.process.supervisor import Child
from common.storage.atomic_file import write_text
from server.consortium.consortium_folder import ConsortiumFolder
from server.flower.flower_commands import flower_environment
from simulations.consortium.local_consortium import local_spec, make_consortium
from simulations.deployed.bench_run import (
    Measured,
    MemoryWatch,
    bench_bundle,
    bytes_a_round,
    run_app,
    supervised,
    wait_until,
)
from simulations.deployed.tcp_proxy import TcpProxy

MODULE = "simulations.deployed.stock_app"
CONNECTION = "stock"


def measure_stock(root: Path, sites: int, parameters: int, rounds: int) -> Measured:
    """Return what rounds take with Flower as it comes: no TLS, no keys, all in memory.

    Raises:
        RunError: It did not finish in time.
    """
    port = free_port()
    return _measure(root, port, ["--insecure"], [["--insecure"]] * sites, parameters, rounds)


def measure_secured_stock(root: Path, sites: int, parameters: int, rounds: int) -> Measured:
    """Return what rounds take with Flower's TLS and node keys and its database on disk, as ours.

    Raises:
        RunError: It did not finish in time.
    """
    consortium = make_consortium(root, local_spec(sites, 30))
    folder = consortium.folder
    keys = [node_key_path(load_policy(home).identity_key) for home in consortium.sites.values()]
    trusted = ["--root-certificates", str(folder.ca_cert)]
    nodes = [[*trusted, "--auth-supernode-private-key", str(key)] for key in keys]
    port = int(folder.consortium().listen.rpartition(":")[2])
    public = [key.with_name(f"{key.name}.pub") for key in keys]
    return _measure(root, port, _secured(folder), nodes, parameters, rounds, folder.ca_cert, public)


def _measure(
    root: Path,
    port: int,
    link_options: list[str],
    node_options: list[list[str]],
    parameters: int,
    rounds: int,
    ca_cert: Path | None = None,
    keys: list[Path] | None = None,
) -> Measured:
    home = flower_environment(root / "flwr")
    trust = "insecure = true" if ca_cert is None else f'root-certificates = "{ca_cert}"'
    write_text(
        root / "flwr" / "config.toml",
        f'[superlink]\ndefault = "{CONNECTION}"\n[superlink.{CONNECTION}]\n'
        f'address = "127.0.0.1:{port}"\n{trust}\n',
    )
    proxies = [TcpProxy(port) for _ in node_options]
    isolated = ["--host", "127.0.0.1", "--isolation", "subprocess"]
    link = [_program("flower-superlink"), *isolated, "--disable-runtime-dependency-installation"]
    link += ["--port", str(port), *link_options]
    nodes = []
    for number, (proxy, options) in enumerate(zip(proxies, node_options, strict=True)):
        node = [_program("flower-supernode"), *isolated, "--port", str(free_port())]
        node += ["--superlink", f"127.0.0.1:{proxy.port}", *options]
        nodes.append(Child(f"node-{number}", node, root / f"node-{number}.log", home))
    bundle = bench_bundle(root, f"{MODULE}:server", f"{MODULE}:client")
    config = {"nodes": len(nodes), "parameters": parameters, "rounds": rounds}
    with supervised([Child("superlink", link, root / "superlink.log", home)], root / "link.json"):
        wait_until(lambda: bool(_flwr(home, "ls", CONNECTION)), "the SuperLink", logs=root)
        for key in keys or ():
            _flwr(home, "supernode", "register", str(key), CONNECTION)
        with supervised(nodes, root / "nodes.json"), MemoryWatch() as memory:
            seconds = run_app(root, partial(_start, root, home, bundle), config)
    return Measured(seconds, bytes_a_round(proxies, rounds), dict(memory.peak_mib))


def _start(root: Path, home: Mapping[str, str], bundle: Path, config: Mapping[str, str]) -> None:
    file = root / "run-config.toml"
    write_text(file, "".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items()))
    _flwr(home, "run", str(bundle), CONNECTION, "--run-config", str(file))


def _flwr(home: Mapping[str, str], *arguments: str) -> str:
    """Run Flower's own command line and return what it printed.

    Raises:
        RunError: It failed.
    """
    done = subprocess.run(
        [_program("flwr"), *arguments],
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise RunError(f"`flwr {' '.join(arguments)}` failed", why=done.stdout + done.stderr)
    return done.stdout


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _secured(folder: ConsortiumFolder) -> list[str]:
    return [
        *("--database", str(folder.database), "--enable-supernode-auth"),
        *("--ssl-certfile", str(folder.server_cert), "--ssl-keyfile", str(folder.server_key)),
        *("--ssl-ca-certfile", str(folder.ca_cert)),
    ]
