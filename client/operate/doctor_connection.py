"""Check a hospital's connection to the consortium: kit, site gate, server, agent."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from client.agent.service import is_healthy
from client.operate.site_processes import SitePaths
from client.site.enrol_connection import SiteConnection, check_kit
from client.site.site_gate import GATED, read_allowed
from common.commands.doctor import Check, Finding
from common.process.grpc_health import is_serving
from common.process.supervisor import read_supervised
from common.study.site_policy import SitePolicy
from common.trust.connection import split_address
from common.trust.tls_probe import probe

WARNING_DAYS = 30.0
FORBIDDEN = 403
AHEAD_S, BEHIND_S = 5.0, 300.0
"""Flower refuses a SuperNode whose clock is further off than this."""


def connection_checks(site: Path, policy: SitePolicy, socket: Path) -> list[tuple[str, Check]]:
    """Return the checks of an installed kit, or the one that says there is none.

    Args:
        site: `site.yaml`, or the folder that holds it.
        policy: The hospital.
        socket: The agent's socket.
    """
    connection = SiteConnection.of_site(site)
    agent: tuple[str, Check] = ("agent", lambda: _agent(socket))
    if not connection.is_installed:
        return [("site kit", _no_kit), agent]
    return [
        ("site kit", lambda: _kit(connection, policy)),
        ("site gate", lambda: _gate(connection)),
        ("server", lambda: _server(connection)),
        ("supernode", lambda: _node(site)),
        agent,
    ]


def _no_kit() -> Iterator[Finding]:
    cure = "`tumorboard site request`, then `tumorboard site install-kit`"
    yield Finding("site kit", "warning", "this hospital belongs to no consortium yet", cure)


def _kit(connection: SiteConnection, policy: SitePolicy) -> Iterator[Finding]:
    link = check_kit(connection, policy)
    roster = connection.roster()
    message = f"{link.consortium}, roster version {roster.version}, {link.superlink}"
    yield Finding("site kit", "ok", message)


def _gate(connection: SiteConnection) -> Iterator[Finding]:
    cure = "install the kit again: `tumorboard site install-kit`"
    missing = [name for name in GATED if not os.access(connection.gate / name, os.X_OK)]
    if missing:
        message = f"not there or not executable: {', '.join(missing)}"
        yield Finding("site gate", "problem", message, cure)
    else:
        first = (connection.gate / GATED[0]).read_text(encoding="utf-8").partition("\n")[0]
        if not os.access(first.removeprefix("#!"), os.X_OK):
            yield Finding("site gate", "problem", f"it names a Python that is gone: {first}", cure)
    digests = read_allowed(connection.allowed_bundles)
    digest = connection.connection().bundle_digest
    if digests != {digest}:
        message = f"it allows {len(digests)} bundles, and not just the one of the kit"
        yield Finding("site gate", "problem", message, cure)
    elif not missing:
        yield Finding("site gate", "ok", f"allows bundle {digest[:12]}")


def _server(connection: SiteConnection) -> Iterator[Finding]:
    address = connection.connection().superlink
    certificate = probe(address, connection.ca_cert)
    if certificate.days_left < WARNING_DAYS:
        message = f"the certificate of {address} expires in {certificate.days_left:.0f} days"
        yield Finding("server", "warning", message, "ask the coordinator to rotate it")
    else:
        yield Finding("server", "ok", f"{address} answers with the right certificate")
    if not split_address(address)[0].startswith(("127.", "localhost", "::1")):
        yield from _control(connection, address)
    ahead = certificate.clock_ahead_s
    if ahead is None:
        return
    if not -BEHIND_S < ahead < AHEAD_S:
        side = "ahead of" if ahead > 0 else "behind"
        message = f"this clock is {abs(ahead):.0f} s {side} the server's; Flower will refuse it"
        cure = "synchronise the clock: `timedatectl set-ntp true`, or ask the coordinator"
        yield Finding("clock", "problem", message, cure)


def _control(connection: SiteConnection, address: str) -> Iterator[Finding]:
    status = probe(address, connection.ca_cert, "/v1/control/list-runs").status
    if status != FORBIDDEN:
        message = f"{address} lets any hospital reach /v1/control (status {status})"
        cure = "ask the coordinator to put the shipped proxy in front of the SuperLink"
        yield Finding("server", "warning", message, cure)


def _node(site: Path) -> Iterator[Finding]:
    running = read_supervised(SitePaths.of(site).status)
    if running is None:
        return
    if is_serving(str(running.facts.get("supernode_health", ""))):
        yield Finding("supernode", "ok", "answers over gRPC that it is serving")
    else:
        cure = "see private/log/supernode.log; it is restarted by itself"
        yield Finding("supernode", "problem", "runs, but does not answer health checks", cure)


def _agent(socket: Path) -> Iterator[Finding]:
    if not socket.exists():
        cure = "start it before the hospital takes part: `tumorboard site agent`"
        yield Finding("agent", "warning", f"not running: there is no {socket}", cure)
        return
    mode = stat.S_IMODE(socket.stat().st_mode)
    if mode & 0o007:
        message = f"everybody may call {socket}"
        yield Finding("agent", "problem", message, f"chmod 600 {socket}; start the agent again")
    if is_healthy(socket):
        yield Finding("agent", "ok", f"answers on {socket}")
    else:
        yield Finding("agent", "problem", f"does not answer on {socket}", "start it again")
