"""Command `tumorboard site page`: serve a hospital's live page about itself."""

from __future__ import annotations

import typer

from client.operate.options import SiteOption, SocketOption
from client.page.ledger_reading import LedgerReader
from client.page.site_files import read_site_files
from client.site.site_folder import load_policy
from common.commands.cli_output import Output
from common.commands.options import JsonOption
from common.page.command import HostOption, PortOption, PublicNameOption, serve_and_say


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
    from client.page.site_view import content_of, view_site
    from common.page.application import live_page

    load_policy(site)  # a mistyped folder is told here, not on a page
    reader = LedgerReader()
    app = live_page(
        lambda: content_of(view_site(read_site_files(site, reader, socket))),
        package="client.page",
        template="site.html.j2",
    )
    serve_and_say(app, host=host, port=port, public_names=public_name, output=Output(json_output))
