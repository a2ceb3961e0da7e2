"""Run the site agent as a process: socket, audit log and structured log of one hospital."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from client.agent.call_journal import CallJournal
from client.agent.log_files import events_path, site_audit_log
from client.agent.service import serve
from client.agent.site_agent import SiteAgent
from client.site.disk_watch import DiskWatch, written_places
from client.site.enrol_connection import SiteConnection
from client.site.hospital_roster import HospitalRoster
from common.process.event_log import close_events, write_events
from common.study.site_policy import SitePolicy


def run_agent(
    reload: Callable[[], SitePolicy],
    connection: SiteConnection,
    socket: Path | None,
    *,
    share: bool,
) -> None:
    """Serve the agent of a hospital until SIGTERM or SIGINT.

    Args:
        reload: Reads the hospital's policy; rules and consents count as soon as they stand there.
        connection: The site kit; its roster counts as soon as it is installed.
        socket: Path of the Unix socket; `agent.sock` in the private folder by default.
        share: Let the socket's group call too.

    Raises:
        ConfigError: Socket or identity cannot be used.
        LedgerError: The audit log is damaged (AUDIT_LOG).
    """
    policy = reload()
    socket = socket or policy.state.parent / "agent.sock"
    log = site_audit_log(policy)
    agent = SiteAgent(policy, reload=reload, roster=HospitalRoster(connection, log))
    handler = write_events(events_path(policy))
    try:
        log.append("agent_started", socket=str(socket))
        journal, disk = CallJournal(policy.site_id, log), DiskWatch(written_places(policy))
        serve(agent, socket, journal=journal, disk=disk, share=share)
        log.append("agent_stopped")
    finally:
        close_events(handler)
