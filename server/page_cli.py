"""`tumorboard server page`: a live page about one run, to be read in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.cli_output import Output
from common.page.command import HostOption, JsonOption, PortOption, PublicNameOption


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    app.command(epilog="Example: tumorboard server page runs/study-1 --port 8765")(page)


def page(
    folder: Annotated[Path, typer.Argument(help="Folder of the run; it may still be empty.")],
    host: HostOption = "127.0.0.1",
    port: PortOption = 8765,
    public_name: PublicNameOption = None,
    json_output: JsonOption = False,
) -> None:
    """Serve a read-only page about a run: sites, time left, curves, budget, problems and cures.

    It reads the folder and writes nothing. It listens on this machine alone unless a
    --public-name says otherwise.
    """
    from common.page.application import live_page
    from common.page.command import serve_and_say
    from server.page.run_files import read_run_files
    from server.page.run_view import content_of, view_run

    app = live_page(
        lambda: content_of(view_run(read_run_files(folder))),
        package="server.page",
        template="run.html.j2",
        report=folder / "report.html",
    )
    serve_and_say(app, host=host, port=port, public_names=public_name, output=Output(json_output))
