"""Measure rounds over our link: TLS, node keys, proof of identity, relay, agents behind sockets."""

import json
import sys
from functools import partial
from pathlib import Path

from client.operate.site_processes import list_site_processes
from client.site.enrol_connection import SiteConnection
from client.site.site_folder import load_policy
from common.contract import sha256_hex
from common.process.supervisor import Child
from common.storage.atomic_file import write_text
from server.flower.flower_commands import start_run
from server.flower.flower_internals import build_bundle
from server.flower.node_enrolment import NodeEnrolment
from server.flower.superlink import server_processes, status_file
from simulations.consortium.local_consortium import lead_to, make_consortium
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


def measure_ours(root: Path, sites: int, parameters: int, rounds: int) -> Measured:
    """Return what rounds of two exchanges take over our link.

    Raises:
        RunError: It did not finish in time.
    """
    consortium = make_consortium(root, demo_spec(sites=sites, patients=30))
    folder = consortium.folder
    bundle = build_bundle(
        bench_bundle(root, "simulations.deployed.round_app:app", "client.flower.flower_app:app")
    )
    proxies = [TcpProxy(consortium.port) for _ in consortium.sites]
    children, facts = server_processes(folder)
    hospitals: list[Child] = []
    for (site_id, home), proxy in zip(consortium.sites.items(), proxies, strict=True):
        hospitals += _hospital(site_id, home, proxy.port, bundle)
    keys = {member.site_id: member.identity for member in folder.roster().admitted}
    write_text(root / "roster.json", json.dumps(keys))
    config = {"roster": str(root / "roster.json"), "parameters": parameters, "rounds": rounds}

    def enrolled() -> bool:
        NodeEnrolment(folder).update()
        return True

    with supervised(children, status_file(folder), facts):
        wait_until(enrolled, "the SuperLink", logs=root)
        with supervised(hospitals, root / "sites.json"), MemoryWatch() as memory:
            seconds = run_app(root, partial(start_run, folder, bundle=bundle), config)
    return Measured(seconds, bytes_a_round(proxies, rounds), dict(memory.peak_mib))


def _hospital(site_id: str, home: Path, port: int, bundle: bytes) -> list[Child]:
    """Return SuperNode, relay and the agent that only sends numbers, behind a counting line."""
    connection = SiteConnection.of_site(home)
    lead_to(connection, f"127.0.0.1:{port}")
    write_text(connection.allowed_bundles, sha256_hex(bundle) + "\n")
    policy = load_policy(home)
    socket = policy.state.parent / "agent.sock"
    agent = [sys.executable, "-m", "simulations.deployed.payload_agent", "--site", site_id]
    agent += ["--identity", str(policy.identity_key), "--socket", str(socket)]
    children, _ = list_site_processes(home, socket=socket, agent=False)
    return [Child("agent", agent, home / "agent.log"), *children]
