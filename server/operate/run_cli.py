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
    consortium, output = operate.ConsortiumFolder.open(folder), Output(json_output)
    if background:
        operate.serve_in_background(consortium)
        output.say(f"The SuperLink serves at {consortium.consortium().listen}.")
        output.result({"folder": str(consortium.root), "listen": consortium.consortium().listen})
        return
    operate.serve(consortium, output)


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
    consortium = operate.ConsortiumFolder.open(folder)
    run_folder = operate.new_run(consortium, operate.Study.from_yaml(study))
    _start(consortium, run_folder, follow=follow, output=Output(json_output))


@app.command(epilog="Example: tumorboard server status consortium")
def status(
    folder: Annotated[Path, typer.Argument(help="The coordinator's folder, or one run's.")],
    run: RunOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show the SuperLink's health, the run's phase, round and time left, and every site."""
    report = operate.read_server_status(folder, run)
    output = Output(json_output)
    if report["server"] is not None:
        server = report["server"]
        output.say(f"SuperLink {server['listen']}: {server['health']}")
        rows = [
            [name, child["pid"], child["restarts"], child["log"]]
            for name, child in sorted(server["processes"].items())
        ]
        output.table("Processes", ["process", "pid", "restarts", "log"], rows)
        for warning in server["warnings"]:
            output.say(f"warning: {warning['found']}\n  fix: {warning['cure']}")
    _say_run(report["run"], output)
    output.result(report)


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
    consortium, output = operate.ConsortiumFolder.open(folder), Output(json_output)
    target = operate.stop_run(consortium, run, now=now, must_exist=not down or run is not None)
    if target is not None:
        state = target.state()
        is_done = state is not None and state.phase == "done"
        more = "is done." if is_done else "has stopped; `tumorboard server resume` continues it."
        output.say(f"{target.name} {more}")
    was_running = operate.end_supervised(operate.status_file(consortium)) if down else None
    if down:
        output.say("The SuperLink has ended." if was_running else "The SuperLink was not running.")
    result = {"run": target.name if target else None, "down": down, "was_running": was_running}
    output.result(result)


@app.command(epilog="Example: tumorboard server resume consortium")
def resume(
    folder: FolderArgument,
    run: RunOption = None,
    follow: FollowOption = True,
    json_output: JsonOption = False,
) -> None:
    """Continue a stopped or failed run after its last committed round, with identical bytes."""
    consortium = operate.ConsortiumFolder.open(folder)
    _start(consortium, operate.find_run(consortium, run), follow=follow, output=Output(json_output))


def _start(
    folder: operate.ConsortiumFolder, run: operate.RunFolder, *, follow: bool, output: Output
) -> None:

    operate.request_run(folder, run)
    result: dict[str, object] = {"run": run.name, "folder": str(run.path)}
    if follow:
        result["report"] = str(operate.follow_run(run, output))
        output.say(f"Report: {result['report']}")
    elif run.is_requested:
        output.say(f"{run.name} is under way; see `tumorboard server status`.")
    else:
        output.say(f"{run.name} is done; `tumorboard server report` writes its report.")
    output.result(result)


def _say_run(report: dict[str, Any] | None, output: Output) -> None:
    if report is None:
        output.say("No run yet.")
        return
    left = f", {clock(report['eta_s'])} left" if report["eta_s"] is not None else ""
    progress = f"round {report['round']} of {report['rounds']}"
    output.say(f"run {report['name']}: {report['phase']}, {progress}{left}")
    if report["reason"]:
        output.say(f"reason: {report['reason']}")
    rows = [
        [
            name,
            site["state"],
            site["refusal_code"] or site["dropped"],
            site["last_round"],
            site["epsilon_spent"],
        ]
        for name, site in sorted(report["sites"].items())
    ]
    output.table("Sites", ["site", "state", "refused", "last round", "epsilon spent"], rows)
    for name, site in sorted(report["sites"].items()):
        if site["cure"]:
            code = site["refusal_code"] or site["dropped"]
            output.say(f"{name}: [{code}] {operate.guide_of(code).happened}\n  fix: {site['cure']}")
