"""Report the health of the SuperLink and the progress of a run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
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
from server.session.run_state import RunState, SiteState, load_run_state

RECENT = 10
"""Number of last rounds that determine the pace."""


@dataclass(frozen=True)
class RunProgress:
    """Where a run stands.

    Attributes:
        state: Its state.
        seconds_per_round: Median of the last rounds; None before the first.
        eta_s: Seconds left for the rounds that are left; None before the first round, or when
            the run has ended.
        dropped: Site -> code, or `silent`, of those whose part the last committed round lacks.
    """

    state: RunState
    seconds_per_round: float | None
    eta_s: float | None
    dropped: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return state and pace for JSON."""
        pace = {"seconds_per_round": self.seconds_per_round, "eta_s": self.eta_s}
        return {**self.state.model_dump(mode="json"), **pace}


def run_progress(run_dir: Path) -> RunProgress | None:
    """Return the progress of the run in a folder, or None if it never started.

    Raises:
        RunError: The state is damaged.
    """
    state = load_run_state(run_dir)
    if state is None:
        return None
    history = _history(run_dir, state.round)
    seconds = [s for r in history if (s := r.get("seconds")) is not None]
    pace = median(seconds[-RECENT:]) if seconds else None
    running = state.phase in ("enrolling", "ready", "round", "evaluating")
    left = state.rounds - state.round
    dropped = history[-1].get("dropped", {}) if history else {}
    return RunProgress(state, pace, pace * left if running and pace is not None else None, dropped)


def _history(run_dir: Path, number: int) -> list[dict[str, Any]]:
    """Return the records of all rounds so far, as the last checkpoint states them."""
    file = run_dir / "checkpoints" / f"round_{number:06d}.json"
    try:
        return list(json.loads(file.read_text(encoding="utf-8"))["history"])
    except (OSError, ValueError, KeyError):
        return []


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
