"""Commands by which a hospital joins a consortium: keys, request, kit, roster, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client import operate
from client.operate.options import SiteOption, SocketOption
from common.commands.cli_output import Output
from common.commands.options import JsonOption
from common.errors import ProtocolError

app = typer.Typer()


@app.command(epilog="Example: tumorboard site keygen --site hospital-a")
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


@app.command(
    epilog="Example: tumorboard site request --site hospital-a --out hospital-a.request.json"
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
    form = operate.write_request(policy, name, target)
    output = Output(json_output)
    output.say(f"Request: {target}. Send it to the coordinator.")
    output.say(f"Fingerprint, compare by telephone: {form.fingerprint}")
    output.result({"file": str(target), "fingerprint": form.fingerprint, **form.model_dump()})


@app.command(epilog="Example: tumorboard site install-kit --site hospital-a --kit hospital-a-kit")
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


@app.command(epilog="Example: tumorboard site doctor --site hospital-a")
def doctor(
    site: SiteOption,
    socket: SocketOption = None,
    json_output: JsonOption = False,
) -> None:
    """Check machine, data, keys, policy, kit, site gate, server and agent; a fix for each problem.

    Exit status 1 if there is a problem; warnings do not count.
    """
    raise typer.Exit(operate.show(operate.examine_site(site, socket), Output(json_output)))


@app.command(epilog="Example: tumorboard site roster --site hospital-a --install roster.json")
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
    ours = connection.roster()
    output = Output(json_output)
    if install is not None:
        newer = ours.version > before
        output.say(f"Taken over: version {ours.version}." if newer else "This one is known here.")
    raise typer.Exit(0 if _show_roster(ours, policy.site_id, output) else 1)


def _show_roster(roster: operate.Roster, site_id: str, output: Output) -> bool:
    """Show the roster and return whether this hospital is admitted."""
    own = roster.member(site_id)
    is_admitted = own is not None and own.status == "admitted"
    output.table(
        f"Roster of {roster.consortium}, version {roster.version}",
        ("site", "name", "status", "since", "reason", "keys"),
        [(m.site_id, m.name, m.status, m.since, m.reason, m.fingerprint) for m in roster.members],
    )
    output.say(f"Fingerprint of this roster, compare by telephone: {roster.fingerprint}")
    if not is_admitted:
        output.say(f"{site_id} is {'revoked' if own else 'not on this roster'}.")
    members = [{**m.model_dump(mode="json"), "fingerprint": m.fingerprint} for m in roster.members]
    output.result(
        {
            "consortium": roster.consortium,
            "version": roster.version,
            "fingerprint": roster.fingerprint,
            "site_id": site_id,
            "admitted": is_admitted,
            "members": members,
        }
    )
    return is_admitted
