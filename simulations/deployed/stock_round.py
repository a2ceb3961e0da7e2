"""Rounds of stock Flower FedAvg: as it comes, and as a consortium would have to run it."""

from __future__ import annotations

from pathlib import Path

from client.site.identity import node_key_path
from client.site.site_folder import load_policy
from common.errors import RunError
from common.process.free_port import free_port
from common.process.supervisor import Child
from common.storage.atomic_file import write_text
from server.consortium.consortium_folder import ConsortiumFolder
from server.flower.flower_commands import CONNECTION, flower_environment, write_connection
from server.flower.node_enrolment import NodeEnrolment
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
_FLOWER = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
_LINK = ["flower-superlink", "--host", "127.0.0.1", "--isolation", "subprocess"]
_LINK += ["--disable-runtime-dependency-installation"]


def measure_stock(root: Path, sites: int, parameters: int, rounds: int) -> Measured:
    """Return what rounds take with Flower as it comes: no TLS, no keys, all in memory.

    Raises:
        RunError: It did not finish in time.
    """
    port = free_port()
    home = {**_FLOWER, "FLWR_HOME": str(root / "flwr")}
    write_text(
        root / "flwr" / "config.toml",
        f'[superlink]\ndefault = "{CONNECTION}"\n[superlink.{CONNECTION}]\n'
        f'address = "127.0.0.1:{port}"\ninsecure = true\n',
    )
    proxies = [TcpProxy(port) for _ in range(sites)]
    link = Child("superlink", [*_LINK, "--insecure", "--port", str(port)], root / "link.log", home)
    nodes = [
        _node(root, number, proxy, ["--insecure"], home) for number, proxy in enumerate(proxies)
    ]
    config = {"nodes": sites, "parameters": parameters, "rounds": rounds}
    bundle = bench_bundle(root, f"{MODULE}:server", f"{MODULE}:client")
    with supervised([link, *nodes], root / "stock.json", {}), MemoryWatch() as memory:
        seconds = run_app(root, home, CONNECTION, bundle, config)
    return Measured(seconds, bytes_a_round(proxies, rounds), dict(memory.peak_mib))


def measure_secured_stock(root: Path, sites: int, parameters: int, rounds: int) -> Measured:
    """Return what rounds take with Flower's TLS and node keys and its database on disk, as ours.

    Raises:
        RunError: It did not finish in time.
    """
    consortium = make_consortium(root, local_spec(sites, 30))
    folder = consortium.folder
    write_connection(folder)
    port = int(folder.consortium().listen.rpartition(":")[2])
    proxies = [TcpProxy(port) for _ in consortium.sites]
    home = flower_environment(folder)
    link = Child("superlink", [*_LINK, *_secured(folder, port)], root / "link.log", home)
    nodes = []
    for number, (place, proxy) in enumerate(zip(consortium.sites.values(), proxies, strict=True)):
        key = node_key_path(load_policy(place).identity_key)
        options = ["--root-certificates", str(folder.ca_cert)]
        options += ["--auth-supernode-private-key", str(key)]
        nodes.append(_node(root, number, proxy, options, home))
    config = {"nodes": sites, "parameters": parameters, "rounds": rounds}
    bundle = bench_bundle(root, f"{MODULE}:server", f"{MODULE}:client")
    with supervised([link], root / "link.json", {}):
        wait_until(lambda: _enrolled(folder), "the SuperLink")
        with supervised(nodes, root / "nodes.json", {}), MemoryWatch() as memory:
            seconds = run_app(root, home, CONNECTION, bundle, config)
    return Measured(seconds, bytes_a_round(proxies, rounds), dict(memory.peak_mib))


def _secured(folder: ConsortiumFolder, port: int) -> list[str]:
    return [
        *("--port", str(port), "--database", str(folder.database), "--enable-supernode-auth"),
        *("--ssl-certfile", str(folder.server_cert), "--ssl-keyfile", str(folder.server_key)),
        *("--ssl-ca-certfile", str(folder.ca_cert)),
    ]


def _node(
    root: Path, number: int, proxy: TcpProxy, options: list[str], home: dict[str, str]
) -> Child:
    node = ["flower-supernode", "--superlink", f"127.0.0.1:{proxy.port}", *options]
    node += ["--host", "127.0.0.1", "--port", str(free_port()), "--isolation", "subprocess"]
    return Child(f"node-{number}", node, root / f"node-{number}.log", home)


def _enrolled(folder: ConsortiumFolder) -> bool:
    try:
        NodeEnrolment(folder).update()
    except RunError:
        return False
    return True
