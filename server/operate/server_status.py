"""Report the health of the SuperLink and the progress of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.commands.doctor import examine
from common.error_guide import guide_of
from common.errors import ConfigError
from server.consortium.consortium_folder import ConsortiumFolder
from server.exchange.enrolment import reason
from server.flower.superlink import is_superlink_healthy, running_server
from server.operate.doctor import certificate_findings
from server.operate.run_folder import RunFolder, all_runs, find_run
from server.session.checkpoint import SILENT
from server.session.run_progress import run_progress
from server.session.run_state import SiteState


def read_server_status(folder: Path, name: str | None = None) -> dict[str, Any]:
    """Return `server` (None for a single run's folder), `run` (None before the first), `runs`.

    Args:
        folder: The coordinator's folder, or the folder of one run.
        name: Name of the run; the latest by default.

    Raises:
        ConfigError: There is neither a consortium nor a run here.
        RunError: The state of the run is damaged.
    """
    consortium = ConsortiumFolder(folder.resolve())
    if not consortium.config.is_file():
        status = run_status(RunFolder(folder))
        if status is None:
            raise ConfigError(
                "there is no run and no consortium in this folder",
                where=str(folder),
                cure="check the path",
            )
        return {"server": None, "run": status, "runs": [status["name"]]}
    runs = all_runs(consortium)
    latest = find_run(consortium, name) if runs or name else None
    return {
        "server": _server(consortium),
        "run": run_status(latest) if latest is not None else None,
        "runs": [run.name for run in runs],
    }


def run_status(run: RunFolder) -> dict[str, Any] | None:
    """Return name, phase, round, rounds, reason, pace and sites of a run; None if there is none."""
    progress = run_progress(run.path)
    if progress is None:
        return None
    status = progress.as_dict() | {"name": run.name, "is_held": run.is_held}
    for name, site in progress.state.sites.items():
        code = site.refusal_code or progress.dropped.get(name)
        status["sites"][name] |= {
            "state": _words(site),
            "dropped": progress.dropped.get(name),
            "cure": guide_of(code).cure if code and code != SILENT else None,
        }
    return status


def _server(folder: ConsortiumFolder) -> dict[str, Any]:
    running = running_server(folder)
    healthy = is_superlink_healthy(folder)
    return {
        "listen": folder.consortium().listen,
        "health": "serving" if healthy else "not answering" if running else "down",
        "processes": running.children if running else {},
        "warnings": [
            {"found": finding.found, "cure": finding.cure}
            for finding in examine([("certificates", lambda: certificate_findings(folder))])
            if finding.status != "ok"
        ],
    }


def _words(site: SiteState) -> str:
    if not site.enrolled:
        return reason(site.refusal_code)
    return {True: "online", False: "offline", None: "enrolled"}[site.online]
