"""Declare the options that many commands share, so that each reads alike everywhere."""

from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
HostOption = Annotated[str, typer.Option("--host", help="Address to listen on.")]
PortOption = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")
]
PublicNameOption = Annotated[
    list[str] | None,
    typer.Option("--public-name", help="Name by which other machines call the page; repeatable."),
]
