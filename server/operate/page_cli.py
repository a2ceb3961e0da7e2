"""Command `tumorboard server page`: serve a live page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.commands.cli_output import Output
from common.commands.options import HostOption, JsonOption, PortOption, PublicNameOption
from common.errors import ConfigError
from common.page.serving import serve_page


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    app.command(epilog="Example: tumorboard server page consortium --port 8765")(page)


def page(
    folder: Annotated[Path, typer.Argument(help="The coordinator's folder, or one run's.")],
    host: HostOption = "127.0.0.1",
    port: PortOption = 8765,
    public_name: PublicNameOption = None,
    json_output: JsonOption = False,
) -> None:
    """Serve a read-only page about a run: sites, time left, curves, budget, problems and cures.

    It reads the folder and writes nothing. It listens on this machine alone unless a
    --public-name says otherwise.
    """
    from server.page.run_page import run_page

    if not folder.is_dir():
        raise ConfigError(
            "there is no such folder",
            where=str(folder),
            cure="name the coordinator's folder, or one run's",
        )
    app = run_page(folder)
    serve_page(app, host=host, port=port, names=public_name, output=Output(json_output))
