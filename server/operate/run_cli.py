"""Commands that run studies: up, run, status, stop, resume."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from common.commands.cli_output import Output, clock
from common.commands.options import JsonOption
from server import operate

FolderArgument = Annotated[Path, typer.Argument(help="The coordinator's folder.")]
RunOption = Annotated[
    str | None, typer.Option("--run", help="Name of the run; the latest by default.")
]
FollowOption = Annotated[
    bool, typer.Option("--follow/--no-follow", help="Show progress until the run has ended.")
]


app = typer.Typer()


@app.command(epilog="Example: tumorboard server up consortium --background")
def up(
    folder: FolderArgument,
    background: Annotated[
        bool, typer.Option("--background", help="Return as soon as the SuperLink serves.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Run the SuperLink with TLS and node authentication, and keep wanted studies going.

    Registers admitted hospitals, takes revoked ones back, restarts whatever ends. Runs until it
    is interrupted, or `tumorboard server stop --down`.
    """
    opened, output = operate.ConsortiumFolder.open(folder), Output(json_output)
    if background:
        operate.serve_in_background(opened)
        output.say(f"The SuperLink serves at {opened.consortium().listen}.")
        output.result({"folder": str(opened.root), "listen": opened.consortium().listen})
        return
    operate.serve(opened, output)


@app.command(epilog="Example: tumorboard server run consortium study.yaml")
def run(
    folder: FolderArgument,
    study: Annotated[Path, typer.Argument(help="The frozen study.")],
    follow: FollowOption = True,
    json_output: JsonOption = False,
) -> None:
    """Start a study, or continue it, and follow it to the report.

    Needs `tumorboard server up`. Interrupting this command does not stop the run.
    """
    opened = operate.ConsortiumFolder.open(folder)
    made = operate.new_run(opened, operate.Study.from_yaml(study))
    _go(opened, made, follow=follow, output=Output(json_output))


@app.command(epilog="Example: tumorboard server status consortium")
def status(
    folder: Annotated[Path, typer.Argument(help="The coordinator's folder, or one run's.")],
    run: RunOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show the SuperLink's health, the run's phase, round and time left, and every site."""
    told = operate.read_server_status(folder, run)
    output = Output(json_output)
    if told["server"] is not None:
        server = told["server"]
        output.say(f"SuperLink {server['listen']}: {server['health']}")
        rows = [
            [name, child["pid"], child["restarts"], child["log"]]
            for name, child in sorted(server["processes"].items())
        ]
        output.table("Processes", ["process", "pid", "restarts", "log"], rows)
        for warning in server["warnings"]:
            output.say(f"warning: {warning['found']}\n  fix: {warning['cure']}")
    _say_run(told["run"], output)
    output.result(told)


@app.command(epilog="Example: tumorboard server stop consortium")
def stop(
    folder: FolderArgument,
    run: RunOption = None,
    now: Annotated[
        bool, typer.Option("--now", help="Do not wait for the round in flight.")
    ] = False,
    down: Annotated[bool, typer.Option("--down", help="Then end the SuperLink too.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Stop a run after the round in flight; what is committed stays."""
    opened, output = operate.ConsortiumFolder.open(folder), Output(json_output)
    stopped = operate.stop_run(opened, run, now=now, must_exist=not down or run is not None)
    if stopped is not None:
        state = stopped.state()
        done = state is not None and state.phase == "done"
        more = "is done." if done else "has stopped; `tumorboard server resume` continues it."
        output.say(f"{stopped.name} {more}")
    was_running = operate.take_down(opened) if down else None
    if down:
        output.say("The SuperLink has ended." if was_running else "The SuperLink was not running.")
    told = {"run": stopped.name if stopped else None, "down": down, "was_running": was_running}
    output.result(told)


@app.command(epilog="Example: tumorboard server resume consortium")
def resume(
    folder: FolderArgument,
    run: RunOption = None,
    follow: FollowOption = True,
    json_output: JsonOption = False,
) -> None:
    """Continue a stopped or failed run after its last committed round, with identical bytes."""
    opened = operate.ConsortiumFolder.open(folder)
    _go(opened, operate.find_run(opened, run), follow=follow, output=Output(json_output))


def _go(
    folder: operate.ConsortiumFolder, made: operate.RunFolder, *, follow: bool, output: Output
) -> None:

    operate.want_run(folder, made)
    told: dict[str, object] = {"run": made.name, "folder": str(made.path)}
    if follow:
        told["report"] = str(operate.follow_run(made, output))
        output.say(f"Report: {told['report']}")
    elif made.is_wanted:
        output.say(f"{made.name} is under way; see `tumorboard server status`.")
    else:
        output.say(f"{made.name} is done; `tumorboard server report` writes its report.")
    output.result(told)


def _say_run(told: dict[str, Any] | None, output: Output) -> None:
    if told is None:
        output.say("No run yet.")
        return
    left = f", {clock(told['eta_s'])} left" if told["eta_s"] is not None else ""
    done = f"round {told['round']} of {told['rounds']}"
    output.say(f"run {told['name']}: {told['phase']}, {done}{left}")
    if told["reason"]:
        output.say(f"reason: {told['reason']}")
    rows = [
        [
            name,
            site["state"],
            site["refusal_code"] or site["dropped"],
            site["last_round"],
            site["epsilon_spent"],
        ]
        for name, site in sorted(told["sites"].items())
    ]
    output.table("Sites", ["site", "state", "refused", "last round", "epsilon spent"], rows)
    for name, site in sorted(told["sites"].items()):
        if site["cure"]:
            code = site["refusal_code"] or site["dropped"]
            output.say(f"{name}: [{code}] {operate.guide_of(code).happened}\n  fix: {site['cure']}")
