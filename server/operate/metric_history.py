"""Read the metrics of a run by round, for tables and experiment trackers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError
from common.study.study import Study
from server.page.consortium_files import newest_run
from server.page.run_files import read_run_files
from server.session.checkpoint import RoundRecord
from server.session.round_metrics import ROUND_METRICS
from server.session.run_state import RunState

FINAL = "final"


@dataclass(frozen=True)
class Point:
    """One value of one metric.

    Attributes:
        name: One of `ROUND_METRICS`, or `final/<metric>`.
        round: Round it belongs to; the last one for final metrics.
        value: Finite number.
    """

    name: str
    round: int
    value: float


@dataclass(frozen=True)
class MetricHistory:
    """Everything a tracker wants of a run.

    Attributes:
        state: State of the run.
        study: Its study.
        points: By round, then by name.
    """

    state: RunState
    study: Study
    points: tuple[Point, ...]

    @property
    def facts(self) -> dict[str, str]:
        """What does not change by round, as text."""
        plan, training = self.study.privacy, self.study.training
        return {
            "study_id": self.study.study_id,
            "study_digest": self.state.study_digest,
            "code_digest": self.state.code_digest,
            "synthetic": str(self.study.synthetic).lower(),
            "model": self.study.model.name,
            "rounds": str(training.rounds),
            "server_optimizer": training.server.name,
            "learning_rate": f"{training.server.lr:g}",
            "privacy_mode": plan.mode,
            "epsilon": f"{plan.epsilon:g}" if plan.is_private else "none",
            "delta": f"{plan.delta:g}" if plan.is_private else "none",
            "sites": str(len(self.study.sites)),
        }

    def csv(self) -> str:
        """Return `round,metric,value` lines."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("round", "metric", "value"))
        writer.writerows((point.round, point.name, repr(point.value)) for point in self.points)
        return text.getvalue()


def metric_history(folder: Path) -> MetricHistory:
    """Return the metrics of a run, finished or not.

    Args:
        folder: Folder of the run, or the coordinator's, whose newest run is taken.

    Raises:
        ConfigError: There is no run that can be read.
    """
    run_dir = newest_run(folder)
    files = read_run_files(run_dir)
    if files.state is None or files.study is None:
        raise ConfigError(
            "there is no run in this folder",
            where=str(run_dir),
            why="; ".join(problem.what for problem in files.problems),
            cure="name the folder that holds run.json and study.json",
        )
    rounds = [Point(m.name, n, v) for m in ROUND_METRICS for n, v in m.points(files.history)]
    rounds.sort(key=lambda point: point.round)
    points = [*rounds, *_final(run_dir / "report.json", files.history)]
    return MetricHistory(files.state, files.study, tuple(points))


def _final(report: Path, history: Sequence[RoundRecord]) -> Iterator[Point]:
    """Yield the metrics over all sites that a report states; none before there is one."""
    try:
        found = dict(json.loads(report.read_text(encoding="utf-8"))["global"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name, value in found.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield Point(f"{FINAL}/{name}", history[-1].round if history else 0, float(value))
