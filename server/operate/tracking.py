"""Send the metrics of a run to an experiment tracker: TensorBoard files, or MLflow.

Both libraries are optional and are imported when they are asked for. Nothing is sent anywhere
but to where the coordinator points.
"""

from __future__ import annotations

import os
from pathlib import Path

from common.errors import ConfigError
from common.optional import require
from server.operate.metric_history import MetricHistory

EXTRA = "tracking"


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
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else client.create_experiment(name)
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
