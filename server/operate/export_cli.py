"""Command `tumorboard server export`: a run's metrics as a table or for an experiment tracker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.commands.cli_output import Output
from common.commands.options import JsonOption
from common.storage.atomic_file import write_text


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    example = "Example: tumorboard server export runs/study-1 --csv metrics.csv --tensorboard logs"
    app.command(epilog=example)(export)


def export(
    folder: Annotated[Path, typer.Argument(help="The coordinator's folder, or one run's.")],
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write `round,metric,value` lines here.")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write TensorBoard event files below this folder.")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(help="Log a run to this MLflow address (sqlite:///mlflow.db).")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Export the metrics by round and the final figures; without options, print them as CSV."""
    from server.operate.metric_history import metric_history
    from server.operate.tracking import log_to_mlflow, write_tensorboard

    history = metric_history(folder)
    output = Output(json_output)
    told: dict[str, object] = {"run_id": history.state.run_id, **history.facts}
    if csv is not None:
        write_text(csv, history.csv())
        output.say(f"CSV: {csv}, {len(history.points)} values")
    if tensorboard is not None:
        written = write_tensorboard(history, tensorboard)
        output.say(f"TensorBoard: {tensorboard}, {written} values; `tensorboard --logdir` shows it")
    if mlflow is not None:
        told["mlflow_run"] = log_to_mlflow(history, mlflow)
        output.say(f"MLflow: {mlflow}, run {told['mlflow_run']}")
    if csv is None and tensorboard is None and mlflow is None:
        output.say(history.csv().rstrip("\n"))
    told["points"] = [vars(point) for point in history.points]
    output.result(told)
