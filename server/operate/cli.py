"""The coordinator's commands: create a consortium, run studies, live page, report."""

import json
from pathlib import Path
from typing import Annotated

import typer

from common.commands.cli_output import Output
from common.commands.options import HostOption, JsonOption, PortOption, PublicNameOption
from common.errors import ConfigError
from server import operate
from server.operate import provision_cli, run_cli

app = typer.Typer(no_args_is_help=True, help=__doc__, rich_markup_mode=None)
app.registered_commands += provision_cli.app.registered_commands
app.registered_commands += run_cli.app.registered_commands
FolderArgument = Annotated[Path, typer.Argument(help="The coordinator's folder, or one run's.")]


@app.command(epilog="Example: tumorboard server page consortium --port 8765")
def page(
    folder: FolderArgument,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8765,
    public_name: PublicNameOption = None,
    json_output: JsonOption = False,
) -> None:
    """Serve a read-only page about a run: sites, time left, curves, budget, problems and fixes.

    It reads the folder and writes nothing. It listens on this machine alone unless a
    --public-name says otherwise.
    """
    if not folder.is_dir():
        raise ConfigError(
            "there is no such folder",
            where=str(folder),
            cure="name the coordinator's folder, or one run's",
        )
    output = Output(json_output)
    run_page = operate.run_page(folder)
    operate.serve_page(run_page, host=host, port=port, names=public_name, output=output)


@app.command(
    epilog="Example: tumorboard server export runs/study-1 --csv metrics.csv --tensorboard logs"
)
def export(
    folder: FolderArgument,
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
    history = operate.read_metric_history(folder)
    output = Output(json_output)
    result: dict[str, object] = {"run_id": history.state.run_id, **history.facts}
    if csv is not None:
        operate.write_text(csv, history.csv())
        output.say(f"CSV: {csv}, {len(history.points)} values")
    if tensorboard is not None:
        count = operate.write_tensorboard(history, tensorboard)
        output.say(f"TensorBoard: {tensorboard}, {count} values; `tensorboard --logdir` shows it")
    if mlflow is not None:
        result["mlflow_run"] = operate.log_to_mlflow(history, mlflow)
        output.say(f"MLflow: {mlflow}, run {result['mlflow_run']}")
    if csv is None and tensorboard is None and mlflow is None:
        output.say(history.csv().rstrip("\n"))
    result["points"] = [vars(point) for point in history.points]
    output.result(result)


@app.command(epilog="Example: tumorboard server report consortium --out published")
def report(
    folder: FolderArgument,
    out: Annotated[Path | None, typer.Option(help="Folder; the run's own by default.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Write report.html and report.json of a finished run; asks no site."""
    run_dir = operate.newest_run(folder)
    content = operate.make_content(operate.read_finished_run(run_dir))
    page, twin = operate.build_report(content, out or run_dir)
    output = Output(json_output)
    output.say(f"Report: {page.resolve()}")
    output.result(json.loads(twin.read_text(encoding="utf-8")))
