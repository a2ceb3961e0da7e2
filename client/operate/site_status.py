"""Report what a hospital's processes are doing, for `tumorboard site status` and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from client.agent.service import ask_agent, is_healthy
from client.agent.socket_call import AgentRefusalError
from client.operate.site_processes import SitePaths
from client.site.enrol_connection import SiteConnection
from client.site.site_disks import full_disks
from client.site.site_folder import load_policy
from common.errors import ErrorCode
from common.process.grpc_health import is_serving
from common.process.supervisor import read_supervised
from common.protocol.protocol import StatusRequest


def read_site_status(site: Path) -> dict[str, Any]:
    """Return site_id, consortium, superlink, state, healthy, problems, processes and activity.

    `healthy` is about the processes; `problems` holds places without room. `state` is what the
    agent does (`idle`, `training`, `evaluating`), or `away`.

    Raises:
        ConfigError: There is no hospital here.
    """
    paths, connection, policy = SitePaths.of(site), SiteConnection.of_site(site), load_policy(site)
    pinned = connection.connection() if connection.is_installed else None
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
        "consortium": pinned.consortium if pinned else None,
        "superlink": pinned.superlink if pinned else None,
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
            told = ask_agent(socket, "status", StatusRequest())
            return {"state": told.state, "run_id": told.run_id, "round": told.round}
        except AgentRefusalError:
            pass
    return {"state": "away", "run_id": None, "round": None}
