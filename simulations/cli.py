"""Simulated multi-hospital experiments: run a scenario, compare its arms, list what ships."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.cli_output import Output

app = typer.Typer(no_args_is_help=True, help=__doc__, rich_markup_mode=None)
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command(
    epilog="Example: tumorboard simulate run simulations/scenarios/tcga_luad.yaml "
    "--data ../shared/data --out runs/tcga_luad"
)
def run(
    scenario: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a shipped scenario.")
    ],
    data: Annotated[Path, typer.Option(help="Folder of the public cohorts.")],
    out: Annotated[Path | None, typer.Option(help="Results; runs/<scenario> by default.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    seeds: Annotated[int | None, typer.Option(min=1, help="Only the first seeds.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Run all arms of a scenario on real multi-hospital data; run again to go on."""
    from simulations.scenario import Scenario, find_scenario
    from simulations.scenario_report import scenario_json, write_scenario_report
    from simulations.scenario_run import run_scenario

    chosen = Scenario.from_yaml(find_scenario(scenario))
    if seeds is not None:
        chosen = chosen.model_copy(update={"seeds": chosen.seeds[:seeds]})
    folder = out or Path("runs") / chosen.name
    output = Output(json_output)
    result = run_scenario(chosen, data, folder, workers=workers, output=output)
    page = write_scenario_report(result, folder)
    rows = [
        [
            row["metric"],
            row["arm"],
            row["mean"],
            row["sd"],
            row.get("difference"),
            row.get("p_holm"),
        ]
        for row in result.table.to_dict("records")
    ]
    columns = ["metric", "arm", "mean", "sd", f"minus {chosen.reference}", "p (Holm)"]
    output.table(chosen.title or chosen.name, columns, rows)
    output.say(f"Report: {page}")
    output.result(scenario_json(result))


@app.command("list", epilog="Example: tumorboard simulate list")
def list_scenarios(json_output: JsonOption = False) -> None:
    """List the scenarios that ship with the package."""
    from simulations.scenario import Scenario, shipped_scenarios

    found = [Scenario.from_yaml(path) for path in shipped_scenarios()]
    output = Output(json_output)
    rows = [
        [s.name, s.title, len(s.arms), len(s.seeds) * s.folds.count * len(s.arms)] for s in found
    ]
    output.table("Scenarios", ["name", "title", "arms", "cells"], rows)
    output.result({"scenarios": [{"name": s.name, "title": s.title} for s in found]})
