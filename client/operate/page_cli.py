"""Command `tumorboard site page`: serve a hospital's live page about itself."""

from __future__ import annotations

import typer

from client import operate
from client.operate.options import SiteOption, SocketOption
from common.commands.cli_output import Output
from common.commands.options import HostOption, JsonOption, PortOption, PublicNameOption


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    app.command(epilog="Example: tumorboard site page --site hospital-a --port 8766")(page)


def page(
    site: SiteOption,
    socket: SocketOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8766,
    public_name: PublicNameOption = None,
    json_output: JsonOption = False,
) -> None:
    """Serve a read-only page about this hospital: agent, consents, budget, ledger; no patients.

    It listens on this machine alone unless a --public-name says otherwise.
    """
    operate.load_policy(site)  # a mistyped folder is told here, not on a page
    reader = operate.LedgerReader()

    def content() -> operate.Content:
        return operate.content_of(operate.view_site(operate.read_site_files(site, reader, socket)))

    app = operate.live_page(content, package="client.page", template="site.html.j2")
    operate.serve_page(app, host=host, port=port, names=public_name, output=Output(json_output))
