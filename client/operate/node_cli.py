"""Commands by which a hospital takes part: join, status, live page, leave."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client import operate
from client.operate.options import SiteOption, SocketOption
from common.commands.cli_output import Output
from common.commands.options import HostOption, JsonOption, PortOption, PublicNameOption

READY_S = 120.0


app = typer.Typer()


@app.command(epilog="Example: tumorboard site join --site hospital-a --background")
def join(
    site: SiteOption,
    background: Annotated[
        bool, typer.Option("--background", help="Return as soon as everything is up.")
    ] = False,
    agent: Annotated[
        bool, typer.Option("--agent/--no-agent", help="Also run the site agent.")
    ] = True,
    socket: SocketOption = None,
    json_output: JsonOption = False,
) -> None:
    """Take part: run site agent, SuperNode and relay, and restart whichever ends.

    Runs until it is interrupted, or `tumorboard site leave`. Needs an installed site kit.
    """
    output = Output(json_output)
    if background:
        _in_background(site, agent=agent, socket=socket, output=output)
        return
    paths = operate.SitePaths.of(site)
    children, facts = operate.list_site_processes(site, socket=socket, agent=agent)
    supervisor = operate.Supervisor(children, paths.status, facts=facts)
    output.say(f"Starting {', '.join(child.name for child in children)}; logs in {paths.log}")
    supervisor.run(
        operate.stop_on_signals(), ready=lambda: output.say("Taking part. Interrupt to leave.")
    )


@app.command(epilog="Example: tumorboard site status --site hospital-a")
def status(site: SiteOption, json_output: JsonOption = False) -> None:
    """Show this hospital's processes, what its agent is doing, and disks without room.

    Exit status 1 if a process is not healthy or a disk is full.
    """
    report = operate.read_site_status(site)
    output = Output(json_output)
    output.say(f"{report['site_id']}: {report['state']}")
    if report["consortium"]:
        output.say(f"consortium {report['consortium']} at {report['superlink']}")
    output.table(
        "Processes",
        ["process", "pid", "healthy", "restarts", "log"],
        [[p["name"], p["pid"], p["healthy"], p["restarts"], p["log"]] for p in report["processes"]],
    )
    for problem in report["problems"]:
        output.say(f"[{problem['code']}] {problem['found']}\n  fix: {problem['cure']}")
    output.result(report)
    raise typer.Exit(0 if report["healthy"] and not report["problems"] else 1)


@app.command(epilog="Example: tumorboard site page --site hospital-a --port 8766")
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
    operate.load_policy(site)  # a mistyped folder is reported here, not on a page
    reader = operate.LedgerReader()

    def content() -> operate.Content:
        return operate.content_of(operate.view_site(operate.read_site_files(site, reader, socket)))

    live = operate.live_page(content, package="client.page", template="site.html.j2")
    operate.serve_page(live, host=host, port=port, names=public_name, output=Output(json_output))


@app.command(epilog="Example: tumorboard site leave --site hospital-a")
def leave(site: SiteOption, json_output: JsonOption = False) -> None:
    """End this hospital's processes; a round in flight continues without it."""
    was_running = operate.end_supervised(operate.SitePaths.of(site).status)
    output = Output(json_output)
    output.say("Left." if was_running else "Was not taking part.")
    output.result({"was_running": was_running})


def _in_background(site: Path, *, agent: bool, socket: Path | None, output: Output) -> None:
    paths = operate.SitePaths.of(site)
    operate.check_site(site, socket=socket)
    arguments = ["site", "join", "--site", str(paths.site), "--agent" if agent else "--no-agent"]
    operate.BackgroundStart(
        arguments=[*arguments, *(["--socket", str(socket)] if socket else [])],
        log=paths.log / "join.log",
        status=paths.status,
        is_ready=lambda: bool(operate.read_site_status(site)["healthy"]),
        ready_s=READY_S,
        failed="the processes of this site are not healthy",
    ).run()
    report = operate.read_site_status(site)
    output.say(f"{report['site_id']} takes part; logs in {paths.log}")
    output.result(report)
