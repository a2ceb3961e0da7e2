"""Command that shows the consortium's roster as this hospital knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client import operate
from client.operate.options import SiteOption
from common.commands.cli_output import Output
from common.commands.options import JsonOption


def register(app: typer.Typer) -> None:
    """Add this command to `tumorboard site`."""
    example = "roster --site hospital-a --install roster.json"
    app.command(epilog=f"Example: tumorboard site {example}")(roster)


def roster(
    site: SiteOption,
    install: Annotated[
        Path | None,
        typer.Option(help="First take over a newer signed roster: the coordinator's roster.json."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Show the signed roster this hospital goes by: version, hospitals, fingerprints of their keys.

    It comes with the kit and with every study. An altered or older one is refused.

    Exit status 1 if this hospital is not admitted, 2 without a site kit, 4 if a roster is refused.
    """
    policy, connection = operate.load_policy(site), operate.SiteConnection.of_site(site)
    before = connection.roster().version
    if install is not None:
        operate.HospitalRoster(connection, operate.site_audit_log(policy)).install(install)
    told = connection.roster()
    output = Output(json_output)
    if install is not None:
        newer = told.version > before
        output.say(f"Taken over: version {told.version}." if newer else "This one is known here.")
    raise typer.Exit(0 if _show(told, policy.site_id, output) else 1)


def _show(told: operate.Roster, site_id: str, output: Output) -> bool:
    """Show the roster and return whether this hospital is admitted."""
    own = told.member(site_id)
    admitted = own is not None and own.status == "admitted"
    output.table(
        f"Roster of {told.consortium}, version {told.version}",
        ("site", "name", "status", "since", "reason", "keys"),
        [(m.site_id, m.name, m.status, m.since, m.reason, m.fingerprint) for m in told.members],
    )
    output.say(f"Fingerprint of this roster, compare by telephone: {told.fingerprint}")
    if not admitted:
        output.say(f"{site_id} is {'revoked' if own else 'not on this roster'}.")
    members = [{**m.model_dump(mode="json"), "fingerprint": m.fingerprint} for m in told.members]
    output.result(
        {
            "consortium": told.consortium,
            "version": told.version,
            "fingerprint": told.fingerprint,
            "site_id": site_id,
            "admitted": admitted,
            "members": members,
        }
    )
    return admitted
