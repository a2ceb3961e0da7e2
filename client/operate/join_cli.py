"""Commands by which a hospital joins a consortium: keys, request, kit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client import operate
from client.operate.options import SiteOption, SocketOption
from common.commands.cli_output import Output
from common.commands.options import JsonOption
from common.errors import ProtocolError


def register(app: typer.Typer) -> None:
    """Add these commands to `tumorboard site`."""
    for command, example in (
        (keygen, "keygen --site hospital-a"),
        (request, "request --site hospital-a --out hospital-a.request.json"),
        (install_kit, "install-kit --site hospital-a --kit hospital-a-kit"),
        (doctor, "doctor --site hospital-a"),
    ):
        app.command(epilog=f"Example: tumorboard site {example}")(command)


def keygen(site: SiteOption, json_output: JsonOption = False) -> None:
    """Make this hospital's identity and node key; their private halves never leave it."""
    policy = operate.load_policy(site)
    keys = operate.make_keys(policy)
    output = Output(json_output)
    output.say(f"Private keys: {policy.identity_key}, {operate.node_key_path(policy.identity_key)}")
    output.say(f"Public key for the roster: {keys.identity}")
    output.say(f"Public key of the SuperNode: {keys.node_key}")
    output.say("Next: `tumorboard site request`, and send its file to the coordinator.")
    output.result(
        {"site_id": policy.site_id, "public_key": keys.identity, "node_key": keys.node_key}
    )


def request(
    site: SiteOption,
    out: Annotated[
        Path | None, typer.Option(help="The file; SITE.request.json by default.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the hospital as shown to people.")] = "",
    json_output: JsonOption = False,
) -> None:
    """Write the request to join, for the coordinator; it holds public keys only."""
    policy = operate.load_policy(site)
    target = out or Path(f"{policy.site_id}.request.json")
    made = operate.write_request(policy, name, target)
    output = Output(json_output)
    output.say(f"Request: {target}. Send it to the coordinator.")
    output.say(f"Fingerprint, compare by telephone: {made.fingerprint}")
    output.result({"file": str(target), "fingerprint": made.fingerprint, **made.model_dump()})


def install_kit(
    site: SiteOption,
    kit: Annotated[Path, typer.Option(help="Folder of the kit the coordinator sent.")],
    fingerprint: Annotated[
        str | None, typer.Option(help="The kit's fingerprint, as read out by telephone.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Check the kit of the coordinator and install it beside site.yaml.

    Without --fingerprint, compare the printed one by telephone before you take part.
    """
    target = operate.SiteConnection.of_site(site)
    policy = operate.load_policy(site)
    log = operate.site_audit_log(policy)
    try:
        connection = operate.install_kit(policy, kit, target, fingerprint=fingerprint)
    except ProtocolError as error:
        log.append("kit_refused", code=str(error.code))
        raise
    log.append(
        "kit_installed", connection=connection.digest(), roster_version=target.roster().version
    )
    output = Output(json_output)
    output.say(f"Connected to {connection.consortium} at {connection.superlink}: {target.root}")
    if fingerprint is None:
        output.say(f"Compare by telephone before you take part: {connection.fingerprint}")
    output.result({**connection.model_dump(mode="json"), "fingerprint": connection.fingerprint})


def doctor(
    site: SiteOption,
    socket: SocketOption = None,
    json_output: JsonOption = False,
) -> None:
    """Check machine, data, keys, policy, kit, site gate, server and agent; a cure for each problem.

    Exit status 1 if there is a problem; warnings do not count.
    """
    raise typer.Exit(operate.show(operate.examine_site(site, socket), Output(json_output)))
