"""Estimate how far a run is and when it will be done, from its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from server.session.run_state import RunState, load_run_state

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
