"""Commands that create a consortium and decide who belongs to it."""

from pathlib import Path
from typing import Annotated

import typer

from common.commands.cli_output import Output
from common.commands.options import JsonOption
from server import operate

FolderArgument = Annotated[Path, typer.Argument(help="The coordinator's folder.")]
SiteArgument = Annotated[str, typer.Argument(help="Name of the hospital.")]


app = typer.Typer()


@app.command(
    epilog="Example: tumorboard server provision consortium --name lab --host fl.example.org "
    "--port 443"
)
def provision(
    folder: FolderArgument,
    name: Annotated[str, typer.Option(help="Name of the consortium.")] = "consortium",
    host: Annotated[
        str, typer.Option(help="Name or IP address that hospitals call; that of the proxy.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port that hospitals call.")] = 8443,
    listen: Annotated[
        str, typer.Option(help="host:port the SuperLink binds; loopback, behind the proxy.")
    ] = "127.0.0.1:8443",
    san: Annotated[
        list[str] | None, typer.Option(help="Further name on the certificate; repeatable.")
    ] = None,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Only renew the server certificate of this folder.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Make the consortium's CA, its keys and server certificate, and an empty signed roster.

    Keys are never overwritten. Bound to loopback unless --listen says otherwise.
    """
    output = Output(json_output)
    if rotate:
        consortium = operate.ConsortiumFolder.open(folder)
        operate.rotate_server_certificate(consortium)
        output.say("New server certificate. Start the SuperLink and the proxy again to use it.")
    else:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        operate.provision(folder, name=name, address=address, listen=listen, sans=san or [])
        consortium = operate.ConsortiumFolder.open(folder)
        output.say(f"Consortium: {consortium.root}")
        output.say(f"Keep offline copies of {consortium.ca_key} and {consortium.roster_key}.")
        output.say("Next: `tumorboard server admit` for each hospital's request.")
    left = operate.days_left(operate.load_certificate(consortium.server_cert))
    output.say(f"The server certificate is valid for {left:.0f} days.")
    output.result(
        {
            "folder": str(consortium.root),
            **consortium.consortium().model_dump(mode="json"),
            "certificate_days_left": round(left, 1),
            "roster_key": consortium.roster_public_key(),
        }
    )


@app.command(
    epilog="Example: tumorboard server admit consortium hospital-a.request.json "
    "--kit hospital-a-kit"
)
def admit(
    folder: FolderArgument,
    request: Annotated[Path, typer.Argument(help="The hospital's request file.")],
    kit: Annotated[
        Path | None, typer.Option(help="Also write the site kit to this new folder.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Check a request to join and put the hospital on the signed roster.

    Compare the fingerprint with the hospital by telephone before you send the kit.
    """
    consortium = operate.ConsortiumFolder.open(folder)
    if kit is not None:
        operate.check_kit_folder(kit)
    join_request, new_roster = operate.admit(consortium, request)
    output = Output(json_output)
    output.say(f"Admitted: {join_request.site_id} (roster version {new_roster.version})")
    output.say(f"Fingerprint of the request, compare by telephone: {join_request.fingerprint}")
    facts: dict[str, object] = {
        "site_id": join_request.site_id,
        "fingerprint": join_request.fingerprint,
        "identity": join_request.identity,
        "roster_version": new_roster.version,
    }
    if kit is not None:
        digest = operate.bundle_digest()
        connection = operate.write_kit(consortium, join_request.site_id, kit, bundle_digest=digest)
        output.say(f"Site kit: {kit}; its fingerprint: {connection.fingerprint}")
        facts |= {"kit": str(kit), "kit_fingerprint": connection.fingerprint}
    else:
        output.say("Next: `tumorboard server kit` writes what the hospital installs.")
    output.result(facts)


@app.command(
    epilog='Example: tumorboard server revoke consortium hospital-a --reason "left the study"'
)
def revoke(
    folder: FolderArgument,
    site: SiteArgument,
    reason: Annotated[str, typer.Option(help="Reason; recorded in the roster and the audit log.")],
    json_output: JsonOption = False,
) -> None:
    """Take a hospital off the roster; its keys are never admitted again."""
    shrunk = operate.revoke(operate.ConsortiumFolder.open(folder), site, reason)
    output = Output(json_output)
    output.say(f"Revoked: {site} (roster version {shrunk.version}).")
    output.say("`tumorboard server up` puts its node out within seconds, or when it starts.")
    output.result({"site_id": site, "status": "revoked", "roster_version": shrunk.version})


@app.command(epilog="Example: tumorboard server roster consortium")
def roster(folder: FolderArgument, json_output: JsonOption = False) -> None:
    """Show the signed roster, and what to write under `sites:` in a study."""
    signed = operate.ConsortiumFolder.open(folder).roster()
    output = Output(json_output)
    output.table(
        f"Roster of {signed.consortium}, version {signed.version}",
        ("site", "name", "status", "since", "reason", "keys"),
        [(m.site_id, m.name, m.status, m.since, m.reason, m.fingerprint) for m in signed.members],
    )
    output.say(f"Fingerprint of this roster, compare by telephone: {signed.fingerprint}")
    if signed.admitted:
        output.say("\nsites:")
    for member in signed.admitted:
        output.say(f'  - {{site_id: {member.site_id}, public_key: "{member.identity}"}}')
    output.result({**signed.model_dump(mode="json"), "fingerprint": signed.fingerprint})


@app.command(epilog="Example: tumorboard server kit consortium hospital-a --out hospital-a-kit")
def kit(
    folder: FolderArgument,
    site: SiteArgument,
    out: Annotated[Path, typer.Option(help="New folder for the kit.")],
    json_output: JsonOption = False,
) -> None:
    """Write the kit that one admitted hospital installs; it holds no secret."""
    consortium = operate.ConsortiumFolder.open(folder)
    connection = operate.write_kit(consortium, site, out, bundle_digest=operate.bundle_digest())
    output = Output(json_output)
    output.say(f"Site kit for {site}: {out}")
    output.say(f"Fingerprint, compare by telephone: {connection.fingerprint}")
    output.result({**connection.model_dump(mode="json"), "fingerprint": connection.fingerprint})


@app.command(epilog="Example: tumorboard server doctor consortium")
def doctor(folder: FolderArgument, json_output: JsonOption = False) -> None:
    """Check machine, keys, certificates, port, roster and logs; a fix for each problem.

    Exit status 1 if there is a problem; warnings do not count.
    """
    raise typer.Exit(operate.show(operate.examine_server(folder), Output(json_output)))
