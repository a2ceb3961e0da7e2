"""Define the processes of a hospital, site agent, SuperNode and relay, and report their state.

The agent alone reads patients and has no network. The SuperNode faces the network and starts
nothing: it hands messages to the relay over loopback, guarded by a new secret each time.
"""

import os
import sys
from pathlib import Path
from typing import Any

from client.agent.service import ask_agent, check_socket_path, is_healthy
from client.agent.socket_call import AgentRefusalError
from client.site.enrol_connection import SiteConnection
from client.site.identity import load_node_key, node_key_path
from client.site.site_disks import full_disks
from client.site.site_folder import load_policy
from common.errors import ErrorCode
from common.process.free_port import free_port
from common.process.grpc_health import is_serving
from common.process.supervisor import Child, check_not_running, read_supervised
from common.protocol.protocol import StatusRequest
from common.trust.secret_file import fresh_secret

LOOPBACK = "127.0.0.1"


class SitePaths:
    """Where the processes of a site keep what they share.

    Attributes:
        site: `site.yaml`, or the folder that holds it.
        private: The site's private folder.
        socket: Socket of the agent.
        node: Folder of SuperNode and relay.
        status: Status file of the supervisor.
        log: Folder of the logs.
    """

    def __init__(self, site: Path, private: Path) -> None:
        self.site, self.private = site, private
        self.socket = private / "agent.sock"
        self.node = private / "node"
        self.status = self.node / "processes.json"
        self.log = private / "log"

    @classmethod
    def of(cls, site: Path) -> "SitePaths":
        """Return the paths of a site.

        Raises:
            ConfigError: There is no hospital here.
        """
        return cls(site.resolve(), load_policy(site).state.parent)


def check_site(site: Path, *, socket: Path | None = None) -> None:
    """Refuse what would keep a hospital from taking part, before anything is started or written.

    Args:
        site: `site.yaml`, or the folder that holds it.
        socket: Socket of the agent; in the private folder by default.

    Raises:
        ConfigError: The site has no node key, no connection or too long a socket, or it takes
            part already.
    """
    paths = SitePaths.of(site)
    SiteConnection.of_site(site).connection()
    load_node_key(node_key_path(load_policy(site).identity_key))
    check_socket_path(socket or paths.socket)
    check_not_running(paths.status)


def list_site_processes(
    site: Path, *, socket: Path | None = None, agent: bool = True
) -> tuple[list[Child], dict[str, object]]:
    """Return what a hospital runs to take part, and facts for the status file.

    Args:
        site: `site.yaml`, or the folder that holds it.
        socket: Socket of the agent; in the private folder by default.
        agent: Whether to start the agent too; another service, or user, may run it.

    Raises:
        ConfigError: See `check_site`; or the site's folder cannot be written.
    """
    check_site(site, socket=socket)
    paths, connection = SitePaths.of(site), SiteConnection.of_site(site)
    link = connection.connection()
    key = node_key_path(load_policy(site).identity_key)
    agent_socket = socket or paths.socket
    secret = fresh_secret(paths.node / "relay.secret")
    paths.node.chmod(0o700)
    port, health = free_port(), free_port()
    runtime = f"{LOOPBACK}:{port}"
    shared = {
        "FLWR_HOME": str(paths.node / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{connection.gate}:{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }
    supernode = [sys.executable, "-m", "client.flower.supernode"]
    supernode += ["--superlink", link.superlink, "--root-certificates", str(connection.ca_cert)]
    supernode += ["--auth-supernode-private-key", str(key)]
    supernode += ["--node-config", f'agent-socket="{agent_socket}"', "--isolation", "process"]
    supernode += ["--host", LOOPBACK, "--port", str(port)]
    supernode += ["--superexec-auth-secret-file", str(secret)]
    supernode += ["--health-server-address", f"{LOOPBACK}:{health}"]
    relay = [sys.executable, "-m", "client.flower.relay", "--runtime-api", runtime]
    relay += ["--secret", str(secret), "--allowed", str(connection.allowed_bundles)]
    children = [
        Child(
            "supernode",
            supernode,
            paths.log / "supernode.log",
            shared,
            lambda: is_serving(f"{LOOPBACK}:{health}"),
        ),
        Child("relay", relay, paths.log / "relay.log", shared),
    ]
    if agent:
        children.insert(0, _agent(site, agent_socket, paths))
    return children, {"socket": str(agent_socket), "supernode_health": f"{LOOPBACK}:{health}"}


def _agent(site: Path, socket: Path, paths: SitePaths) -> Child:
    entry = "from common.commands.cli import main; main()"
    command = [sys.executable, "-c", entry, "site", "agent", "--site", str(site.resolve())]
    return Child(
        "agent",
        [*command, "--socket", str(socket)],
        paths.log / "agent.log",
        is_healthy=lambda: is_healthy(socket),
    )


def read_site_status(site: Path) -> dict[str, Any]:
    """Return site_id, consortium, superlink, state, healthy, problems, processes and activity.

    `healthy` is about the processes; `problems` holds places without room. `state` is what the
    agent does (`idle`, `training`, `evaluating`), or `away`.

    Raises:
        ConfigError: There is no hospital here.
    """
    paths, connection, policy = SitePaths.of(site), SiteConnection.of_site(site), load_policy(site)
    link = connection.connection() if connection.is_installed else None
    running = read_supervised(paths.status)
    facts = running.facts if running else {}
    socket = Path(str(facts.get("socket", paths.socket)))
    alive = is_healthy(socket)
    processes = []
    for name, child in (running.children if running else {}).items():
        up = child["pid"] is not None
        if name == "agent":
            up = alive
        elif name == "supernode":
            up = up and is_serving(str(facts.get("supernode_health", "")))
        processes.append({"name": name, "healthy": up, **child})
    return {
        "site_id": policy.site_id,
        "consortium": link.consortium if link else None,
        "superlink": link.superlink if link else None,
        "joined": running is not None,
        "healthy": bool(processes) and alive and all(p["healthy"] for p in processes),
        "problems": [
            {"code": str(ErrorCode.DISK_FULL), "found": finding.found, "cure": finding.cure}
            for finding in full_disks(policy, socket)
        ],
        "processes": processes,
        **_activity(socket, alive),
    }


def _activity(socket: Path, alive: bool) -> dict[str, Any]:
    if alive:
        try:
            status = ask_agent(socket, "status", StatusRequest())
            return {"state": status.state, "run_id": status.run_id, "round": status.round}
        except AgentRefusalError:
            pass
    return {"state": "away", "run_id": None, "round": None}
