"""Measure rounds of stock Flower FedAvg: as shipped, and secured as a consortium would run it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from client.site.identity import node_key_path
from client.site.site_folder import load_policy
from common.errors import RunError
from common.process.free_port import free_port
from common.process.supervisor import Child
from common.storage.atomic_file import write_text
from server.flower.flower_commands import flower_environment
from simulations.consortium.local_consortium import make_consortium
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
from simulations.synthetic.spec import demo_spec

MODULE = "simulations.deployed.stock_app"
CONNECTION = "stock"
ISOLATED = ("--host", "127.0.0.1", "--isolation", "subprocess")


def measure_stock(root: Path, sites: int, parameters: int, rounds: int) -> Measured:
    """Return what rounds take with Flower as it comes: no TLS, no keys, all in memory.

    Raises:
        RunError: It did not finish in time.
    """
    home = _home(root, port := free_port(), "insecure = true")
    config = {"nodes": sites, "parameters": parameters, "rounds": rounds}
    link = _link(root, home, port, ["--insecure"])
    return _measure(root, home, link, [["--insecure"]] * sites, port, config)


def measure_secured_stock(root: Path, sites: int, parameters: int, rounds: int) -> Measured:
    """Return what rounds take with Flower's TLS and node keys and its database on disk, as ours.

    Raises:
        RunError: It did not finish in time.
    """
    consortium = make_consortium(root, demo_spec(sites=sites, patients=30))
    folder = consortium.folder
    port = consortium.port
    home = _home(root, port, f'root-certificates = "{folder.ca_cert}"')
    options = ["--database", str(folder.database), "--enable-supernode-auth"]
    options += ["--ssl-certfile", str(folder.server_cert), "--ssl-keyfile", str(folder.server_key)]
    options += ["--ssl-ca-certfile", str(folder.ca_cert)]
    keys = [node_key_path(load_policy(place).identity_key) for place in consortium.sites.values()]
    trusted = ["--root-certificates", str(folder.ca_cert), "--auth-supernode-private-key"]
    config = {"nodes": sites, "parameters": parameters, "rounds": rounds}
    nodes = [[*trusted, str(key)] for key in keys]
    return _measure(root, home, _link(root, home, port, options), nodes, port, config, keys)


def _home(root: Path, port: int, trust: str) -> dict[str, str]:
    """Write Flower's configuration; return the environment that names it."""
    write_text(
        root / "flwr" / "config.toml",
        f'[superlink]\ndefault = "{CONNECTION}"\n[superlink.{CONNECTION}]\n'
        f'address = "127.0.0.1:{port}"\n{trust}\n',
    )
    return flower_environment(root / "flwr")


def _link(root: Path, home: Mapping[str, str], port: int, options: Sequence[str]) -> Child:
    link = [_program("flower-superlink"), *ISOLATED, "--disable-runtime-dependency-installation"]
    return Child("superlink", [*link, "--port", str(port), *options], root / "superlink.log", home)


def _measure(
    root: Path,
    home: Mapping[str, str],
    link: Child,
    node_options: Sequence[Sequence[str]],
    port: int,
    config: Mapping[str, object],
    keys: Sequence[Path] = (),
) -> Measured:
    proxies = [TcpProxy(port) for _ in node_options]
    nodes = []
    for number, (proxy, options) in enumerate(zip(proxies, node_options, strict=True)):
        node = [_program("flower-supernode"), *ISOLATED, "--port", str(free_port())]
        node += ["--superlink", f"127.0.0.1:{proxy.port}", *options]
        nodes.append(Child(f"node-{number}", node, root / f"node-{number}.log", home))
    start = partial(_start, home, bench_bundle(root, f"{MODULE}:server", f"{MODULE}:client"))
    with supervised([link], root / "link.json"):
        wait_until(lambda: bool(_flwr(home, "ls", CONNECTION)), "the SuperLink", logs=root)
        for key in keys:
            _flwr(home, "supernode", "register", f"{key}.pub", CONNECTION)
        with supervised(nodes, root / "nodes.json"), MemoryWatch() as memory:
            seconds = run_app(root, start, config)
    rounds = len(seconds)
    return Measured(seconds, bytes_a_round(proxies, rounds), dict(memory.peak_mib))


def _start(home: Mapping[str, str], bundle: Path, config: Mapping[str, str]) -> None:
    text = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
    _flwr(home, "run", str(bundle), CONNECTION, "--run-config", text)


def _flwr(home: Mapping[str, str], *arguments: str) -> str:
    """Run Flower's own command line and return what it printed.

    Raises:
        RunError: It failed.
    """
    process = subprocess.run(
        [_program("flwr"), *arguments],
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if process.returncode != 0:
        raise RunError(f"`flwr {' '.join(arguments)}` failed", why=process.stdout + process.stderr)
    return process.stdout


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))
