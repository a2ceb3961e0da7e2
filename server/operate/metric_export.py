"""Export the metrics of a run by round: as a table, to TensorBoard files, or to MLflow.

Both trackers are optional and are imported when they are requested. Nothing is sent anywhere but to
where the coordinator points.
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError
from common.optional import require
from common.study.study import Study
from server.page.consortium_files import newest_run
from server.page.run_files import read_run_files
from server.session.checkpoint import RoundRecord
from server.session.round_metrics import ROUND_METRICS
from server.session.run_state import RunState

FINAL = "final"
EXTRA = "tracking"


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


def read_metric_history(folder: Path) -> MetricHistory:
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
        metrics = dict(json.loads(report.read_text(encoding="utf-8"))["global"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name, value in metrics.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield Point(f"{FINAL}/{name}", history[-1].round if history else 0, float(value))


def write_tensorboard(history: MetricHistory, folder: Path) -> int:
    """Write the metrics as TensorBoard event files; return how many values were written.

    Args:
        history: The metrics.
        folder: Folder to which `tensorboard --logdir` points; the run gets a folder of its own.

    Raises:
        ConfigError: tensorboardX is not installed, or the run was written there before: a second
            set of events would be drawn over the first.
    """
    target = folder / history.state.run_id
    if target.exists() and any(target.iterdir()):
        raise ConfigError(
            "this run was exported there before",
            where=str(target),
            why="TensorBoard would draw both sets of points as one zigzag line",
            cure="remove the folder, or name another one",
        )
    writer = require("tensorboardX", extra=EXTRA).SummaryWriter(logdir=str(target))
    try:
        for point in history.points:
            writer.add_scalar(point.name, point.value, global_step=point.round)
        facts = "\n".join(f"- {name}: {value}" for name, value in history.facts.items())
        writer.add_text("run", facts, global_step=0)
    finally:
        writer.close()
    return len(history.points)


def log_to_mlflow(history: MetricHistory, uri: str) -> str:
    """Log the metrics as one MLflow run; return its identifier.

    Args:
        history: The metrics; the study names the experiment.
        uri: Tracking address, e.g. `sqlite:///mlflow.db` or `http://127.0.0.1:5000`.

    Raises:
        ConfigError: MLflow is not installed, or the address cannot be used.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before the import: it reports usage
    tracking = require("mlflow.tracking", extra=EXTRA)
    entities = require("mlflow.entities", extra=EXTRA)
    exceptions = require("mlflow.exceptions", extra=EXTRA)
    try:
        client = tracking.MlflowClient(tracking_uri=uri)
        name = history.study.study_id
        existing = client.get_experiment_by_name(name)
        experiment = existing.experiment_id if existing else client.create_experiment(name)
        run = client.create_run(experiment, run_name=history.state.run_id).info.run_id
        params = [entities.Param(key, value) for key, value in history.facts.items()]
        client.log_batch(run, params=params)
        metrics = [
            entities.Metric(point.name, point.value, 0, point.round) for point in history.points
        ]
        for start in range(0, len(metrics), 1000):  # the most that one call may hold
            client.log_batch(run, metrics=metrics[start : start + 1000])
        client.set_terminated(run)
    except (exceptions.MlflowException, OSError) as error:
        raise ConfigError(
            "MLflow does not take the run",
            where=uri,
            why=str(error).split("\n", maxsplit=1)[0],
            cure="use a database such as sqlite:///mlflow.db, or the address of a running server",
        ) from None
    return str(run)
