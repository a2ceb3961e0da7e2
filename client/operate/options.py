"""Declare the options that several of a hospital's commands share."""

from pathlib import Path
from typing import Annotated

import typer

SiteOption = Annotated[
    Path, typer.Option("--site", help="The hospital's site.yaml, or the folder that holds it.")
]
SocketOption = Annotated[
    Path | None, typer.Option(help="The agent's Unix socket; private/agent.sock by default.")
]
