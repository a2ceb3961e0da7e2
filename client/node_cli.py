"""Commands by which a hospital takes part: join, status, leave."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from common.cli_output import Output

SiteOption = Annotated[
    Path, typer.Option("--site", help="The hospital's site.yaml, or the folder that holds it.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SocketOption = Annotated[
    Path | None, typer.Option(help="Unix socket of the agent; private/agent.sock by default.")
]
READY_S = 120.0


def register(app: typer.Typer) -> None:
    """Add these commands to `tumorboard site`."""
    for command, example in (
        (join, "join --site hospital-a --background"),
        (status, "status --site hospital-a"),
        (leave, "leave --site hospital-a"),
    ):
        app.command(epilog=f"Example: tumorboard site {example}")(command)


def join(
    site: SiteOption,
    background: Annotated[
        bool, typer.Option("--background", help="Return as soon as everything is up.")
    ] = False,
    agent: Annotated[
        bool, typer.Option("--agent/--no-agent", help="Whether to run the site agent too.")
    ] = True,
    socket: SocketOption = None,
    json_output: JsonOption = False,
) -> None:
    """Take part: run site agent, SuperNode and relay, and restart whichever ends.

    Runs until it is interrupted, or `tumorboard site leave`. Needs an installed site kit.
    """
    from client.site_processes import SitePaths, site_processes
    from common.supervisor import Supervisor, stop_on_signals

    output = Output(json_output)
    if background:
        _in_background(site, agent=agent, socket=socket, output=output)
        return
    paths = SitePaths.of(site)
    children, facts = site_processes(site, socket=socket, agent=agent)
    supervisor = Supervisor(children, paths.status, facts=facts)
    output.say(f"Starting {', '.join(child.name for child in children)}; logs in {paths.log}")
    supervisor.run(stop_on_signals(), ready=lambda: output.say("Taking part. Interrupt to leave."))


def status(site: SiteOption, json_output: JsonOption = False) -> None:
    """Show this hospital's processes, and what its agent is doing."""
    from client.site_status import site_status

    told = site_status(site)
    output = Output(json_output)
    output.say(f"{told['site_id']}: {told['state']}")
    if told["consortium"]:
        output.say(f"consortium {told['consortium']} at {told['superlink']}")
    output.table(
        "Processes",
        ["process", "pid", "healthy", "restarts", "log"],
        [[p["name"], p["pid"], p["healthy"], p["restarts"], p["log"]] for p in told["processes"]],
    )
    output.result(told)
    raise typer.Exit(0 if told["healthy"] else 1)


def leave(site: SiteOption, json_output: JsonOption = False) -> None:
    """End this hospital's processes; a round in flight goes on without it."""
    from client.site_processes import SitePaths
    from common.errors import ConfigError
    from common.supervisor import read_supervised, stop_supervised

    paths = SitePaths.of(site)
    was_running = read_supervised(paths.status) is not None
    if not stop_supervised(paths.status):
        raise ConfigError(
            "the processes did not end within a minute",
            where=str(paths.status),
            cure="run the same command again, or end the process it names",
        )
    output = Output(json_output)
    output.say("Left." if was_running else "Was not taking part.")
    output.result({"was_running": was_running})


def _in_background(site: Path, *, agent: bool, socket: Path | None, output: Output) -> None:
    from client.site_processes import SitePaths
    from client.site_status import site_status
    from common.errors import ConfigError

    paths = SitePaths.of(site)
    paths.log.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", "from common.cli import main; main()", "site", "join"]
    command += ["--site", str(site.resolve()), "--agent" if agent else "--no-agent"]
    command += ["--socket", str(socket)] if socket else []
    with (paths.log / "join.log").open("w") as log:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if started.poll() is not None:
            raise ConfigError(
                "the site could not join",
                where=str(paths.log / "join.log"),
                why=(paths.log / "join.log").read_text(encoding="utf-8").strip(),
                cure="mend what the log names and run the same command again",
            )
        told = site_status(site)
        if told["healthy"]:
            output.say(f"{told['site_id']} takes part; logs in {paths.log}")
            output.result(told)
            return
        time.sleep(0.5)
    raise ConfigError(
        "the processes of this site are not healthy",
        where=str(paths.log),
        why=f"not within {READY_S:.0f} s",
        cure="see `tumorboard site status` and the logs; `tumorboard site leave` ends them",
    )
