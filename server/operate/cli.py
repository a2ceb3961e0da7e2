"""The coordinator's commands: create a consortium, run studies, live page, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from common.commands.cli_output import Output
from common.commands.options import JsonOption
from server.operate import export_cli, page_cli, provision_cli, run_cli
from server.page.consortium_files import newest_run

app = typer.Typer(no_args_is_help=True, help=__doc__, rich_markup_mode=None)
provision_cli.register(app)
run_cli.register(app)
page_cli.register(app)
export_cli.register(app)
FolderArgument = Annotated[
    Path, typer.Argument(help="The coordinator's folder, or that of one run.")
]


@app.command(epilog="Example: tumorboard server report consortium --out published")
def report(
    folder: FolderArgument,
    out: Annotated[Path | None, typer.Option(help="Folder; the run's own by default.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Write report.html and report.json of a finished run; asks no site."""
    from server.report.build import build_report
    from server.report.content import make_content
    from server.run.finished_run import read_finished_run

    run_dir = newest_run(folder)
    page, twin = build_report(make_content(read_finished_run(run_dir)), out or run_dir)
    output = Output(json_output)
    output.say(f"Report: {page.resolve()}")
    output.result(json.loads(twin.read_text(encoding="utf-8")))
