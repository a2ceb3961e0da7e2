"""Options of the commands that serve a page, and what they print."""

from __future__ import annotations

from typing import Annotated

import typer

from common.commands.cli_output import Output
from common.page.guard import AsgiApp
from common.page.serving import serve_page

HostOption = Annotated[str, typer.Option("--host", help="Address to listen on.")]
PortOption = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")
]
PublicNameOption = Annotated[
    list[str] | None,
    typer.Option("--public-name", help="Name by which other machines call the page; repeatable."),
]


def serve_and_say(
    app: AsgiApp, *, host: str, port: int, public_names: list[str] | None, output: Output
) -> None:
    """Serve a page until it is stopped, and say where it is once it can be opened.

    Raises:
        ConfigError: The address cannot be had, or would be open to others unasked.
    """

    def ready(url: str) -> None:
        output.say(f"Page: {url}  (stop with Ctrl-C)")
        output.result({"url": url})

    serve_page(app, host=host, port=port, names=public_names or [], ready=ready)
