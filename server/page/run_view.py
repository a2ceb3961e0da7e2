"""View of the coordinator's page about a run: phase, time left, sites, budget, curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from fastapi import FastAPI

from common.page.application import Content, live_page
from common.page.chart import Chart
from common.page.problem import Problem, by_weight
from server.page.consortium_files import ConsortiumFiles, newest_run, read_consortium
from server.page.run_files import RunFiles, read_run_files
from server.page.run_problems import ENDED, run_problems
from server.page.site_rows import SiteRow, site_rows
from server.run.privacy_facts import PROMISES, UNIT
from server.session.checkpoint import RoundRecord
from server.session.round_metrics import ROUND_METRICS

RECENT = 10
"""Rounds that speed and troubles are judged by."""

DISCLAIMER = (
    "Research software for decision support, not a medical device. Nothing here may guide the "
    "treatment of a patient."
)
PHASES = {
    "enrolling": "Enrolling: sites are asked whether they take part",
    "ready": "Ready: enough sites take part",
    "round": "Training",
    "evaluating": "Evaluating the final model at the sites",
    "done": "Done",
    "failed": "Failed",
    "stopped": "Stopped on request",
}


@dataclass(frozen=True)
class RunView:
    """Everything the template draws.

    Attributes:
        files: The run folder as it was read.
        now: When.
        problems: Heaviest first.
        sites: One row per site.
        charts: Learning curves that have points.
        consortium: The consortium whose run it is; None for a run on its own.
    """

    files: RunFiles
    now: datetime
    problems: list[Problem]
    sites: list[SiteRow]
    charts: list[Chart]
    consortium: ConsortiumFiles | None = None
    disclaimer: str = DISCLAIMER
    unit: str = UNIT
    ended: tuple[str, ...] = ENDED

    @property
    def title(self) -> str:
        """Name of the study, of the consortium, or of the folder."""
        study = self.files.study
        if study is not None:
            return study.title or study.study_id
        if self.consortium is not None and self.consortium.consortium is not None:
            return f"Consortium {self.consortium.consortium.name}"
        return self.files.folder.name

    @property
    def phase(self) -> str:
        """Where the run stands, in words."""
        state = self.files.state
        if state is None:
            return "No run here yet"
        if state.phase == "round":
            return f"Training: round {min(state.round + 1, state.rounds)} of {state.rounds}"
        return PHASES.get(state.phase, state.phase)

    @property
    def done_rounds(self) -> int:
        """Committed rounds."""
        last_round = self.files.history[-1].round if self.files.history else 0
        return max(last_round, self.files.state.round if self.files.state else 0)

    @property
    def rounds(self) -> int:
        """Planned rounds, 0 if unknown."""
        return self.files.state.rounds if self.files.state else 0

    @property
    def round_seconds(self) -> float | None:
        """Median seconds of the last rounds."""
        return round_seconds(self.files.history)

    @property
    def left_seconds(self) -> float | None:
        """Seconds to the last round at this speed; None when nothing is running."""
        state = self.files.state
        if state is None or state.phase in ENDED or self.files.at_work is False:
            return None
        pace = self.round_seconds
        return None if pace is None else pace * (self.rounds - self.done_rounds)

    @property
    def finish(self) -> datetime | None:
        """When the last round is expected; None if unknown or done."""
        left = self.left_seconds
        if not left or self.files.changed is None:
            return None
        return self.files.changed + timedelta(seconds=left)

    @property
    def promise(self) -> str:
        """What the privacy mode does and does not promise."""
        return PROMISES[self.files.study.privacy.mode] if self.files.study else ""

    @property
    def last_rounds(self) -> list[RoundRecord]:
        """The last rounds, newest first."""
        return list(self.files.history[: -RECENT - 1 : -1])

    @property
    def announcement(self) -> str:
        """The page in one sentence."""
        parts = [self.phase]
        if self.rounds and self.done_rounds:
            parts.append(f"{self.done_rounds} of {self.rounds} rounds committed")
        serious = sum(problem.weight != "notes" for problem in self.problems)
        if serious:
            parts.append("1 problem" if serious == 1 else f"{serious} problems")
        return ", ".join(parts) + "."

    @property
    def urgent(self) -> str:
        """What a reader wants to hear of at once: a new phase or a new problem."""
        phase = self.files.state.phase if self.files.state else ""
        serious = [p.kind for p in self.problems if p.weight != "notes"]
        return " | ".join([phase, *serious])


def view_run(
    files: RunFiles,
    *,
    consortium: ConsortiumFiles | None = None,
    now: datetime | None = None,
) -> RunView:
    """Return the view of a run folder."""
    now = now or datetime.now(UTC)
    sites = site_rows(files)
    pace = round_seconds(files.history)
    return RunView(
        files=files,
        now=now,
        problems=by_weight(
            [
                *run_problems(files, now=now, pace=pace),
                *files.problems,
                *(consortium.problems if consortium else ()),
            ]
        ),
        sites=sites,
        charts=_charts(files),
        consortium=consortium,
    )


def content_of(view: RunView) -> Content:
    """Return the view as a page serves it."""
    return Content(
        title=f"{view.phase} · {view.title}",
        announcement=view.announcement,
        urgent=view.urgent,
        view=view,
        plain=_plain(view),
    )


def round_seconds(history: Sequence[RoundRecord]) -> float | None:
    """Return the median seconds of the last rounds; None before the first."""
    seconds = [record.seconds for record in history[-RECENT:]]
    return median(seconds) if seconds else None


def _charts(files: RunFiles) -> list[Chart]:
    history = files.history
    rounds = files.state.rounds if files.state else len(history)
    return [
        Chart(m.name, m.title, m.unit, points, rounds, floor=0.0 if m.from_zero else None)
        for m in ROUND_METRICS
        if m.on_page and (points := m.points(history))
    ]


def _plain(view: RunView) -> dict[str, Any]:
    files = view.files
    return {
        "study_id": files.study.study_id if files.study else None,
        "run_id": files.state.run_id if files.state else None,
        "phase": files.state.phase if files.state else None,
        "at_work": files.at_work,
        "round": view.done_rounds,
        "rounds": view.rounds,
        "seconds_a_round": view.round_seconds,
        "seconds_left": view.left_seconds,
        "promised": (files.study.privacy.model_dump(mode="json") if files.study else None),
        "sites": [vars(row) for row in view.sites],
        "processes": [vars(row) for row in (view.consortium.processes or ())]
        if view.consortium
        else [],
        "certificate_days": view.consortium.certificate_days if view.consortium else None,
        "problems": [vars(problem) for problem in view.problems],
    }


def run_page(folder: Path) -> FastAPI:
    """Return the page about a run.

    Args:
        folder: Folder of the run, or the coordinator's, whose newest run is shown.
    """

    def read() -> Content:
        now = datetime.now(UTC)
        files = read_run_files(newest_run(folder))
        return content_of(view_run(files, consortium=read_consortium(folder, now), now=now))

    return live_page(
        read,
        package="server.page",
        template="run.html.j2",
        report=lambda: newest_run(folder) / "report.html",
    )
