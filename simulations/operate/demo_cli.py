"""The whole system on this machine in minutes, over synthetic hospitals."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from common.commands.cli_output import Output

app = typer.Typer(help=__doc__, rich_markup_mode=None)


@app.callback(
    invoke_without_command=True,
    epilog="Example: tumorboard demo --out demo-run --mode local",
)
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything; run again to continue.")],
    mode: Annotated[
        Literal["none", "local", "distributed"], typer.Option(help="Privacy mode of training.")
    ] = "local",
    epsilon: Annotated[float, typer.Option(min=0.01, help="Training epsilon per patient.")] = 8.0,
    patients: Annotated[int, typer.Option(min=30, help="Patients per hospital.")] = 45,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of training.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="In this process, or Flower's Ray simulation.")
    ] = "local",
    explain: Annotated[bool, typer.Option(help="Explain a patient of every hospital.")] = True,
    json_output: Annotated[bool, typer.Option("--json", help="Print report.json.")] = False,
) -> None:
    """Write SYNTHETIC hospitals, extract, train, evaluate, report, explain.

    Synthetic results prove code, not medicine.
    """
    from simulations.operate.demo import run_demo

    output = Output(json_output)
    result = run_demo(
        out,
        mode=mode,
        epsilon=epsilon,
        patients=patients,
        rounds=rounds,
        workers=workers,
        engine=engine,
        explain=explain,
        output=output,
    )
    output.say("Seconds: " + ", ".join(f"{k} {v:.0f}" for k, v in result.seconds.items()))
    output.say(f"Report (SYNTHETIC patients): {result.page.resolve()}")
    output.result(json.loads(result.twin.read_text(encoding="utf-8")))
