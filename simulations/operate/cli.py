"""Simulated multi-hospital experiments: run a scenario, compare several, list those included."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from common.commands.cli_output import Output
from common.commands.options import JsonOption
from common.errors import ConfigError

if TYPE_CHECKING:
    from simulations.scenario.arm_comparison import ArmComparison
    from simulations.scenario.scenario import Scenario
    from simulations.scenario.scenario_run import ScenarioResult

app = typer.Typer(no_args_is_help=True, help=__doc__, rich_markup_mode=None)
DataOption = Annotated[Path, typer.Option(help="Folder of the public cohorts.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes; by default the cores.")]
SeedsOption = Annotated[int | None, typer.Option(min=1, help="Only the first seeds.")]
ArmsOption = Annotated[
    str | None, typer.Option(help="Only these arms, comma-separated; the reference always runs.")
]


@app.command(
    epilog="Example: tumorboard simulate run tcga_luad --data ../shared/data --out runs/luad"
)
def run(
    scenario: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a shipped scenario.")
    ],
    data: DataOption,
    out: Annotated[Path | None, typer.Option(help="Results; runs/<scenario> by default.")] = None,
    workers: WorkersOption = None,
    seeds: SeedsOption = None,
    arms: ArmsOption = None,
    json_output: JsonOption = False,
) -> None:
    """Run all arms of a scenario on real multi-hospital data; run again to continue."""
    from simulations.scenario.scenario_report import scenario_json

    choice = _chosen(scenario, seeds, arms)
    folder = out or Path("runs") / choice.name
    output = Output(json_output)
    comparison = _compare([(choice, folder)], data, folder, workers, output)
    output.result(scenario_json(comparison.results[0]))


@app.command(
    epilog="Example: tumorboard simulate compare tcga_luad tcga_brca tcga_stad "
    "--data ../shared/data --out runs/tcga"
)
def compare(
    scenarios: Annotated[
        list[str], typer.Argument(help="YAML files, or names of shipped scenarios.")
    ],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Results of all of them.")] = Path("runs/comparison"),
    workers: WorkersOption = None,
    seeds: SeedsOption = None,
    arms: ArmsOption = None,
    json_output: JsonOption = False,
) -> None:
    """Run several scenarios and rank their arms over all hospitals; run again to continue."""
    from simulations.scenario.scenario_report import scenario_json

    choices = [_chosen(name, seeds, arms) for name in scenarios]
    if len({s.name for s in choices}) < len(choices):
        raise ConfigError("a scenario is named twice", where=", ".join(scenarios))
    output = Output(json_output)
    comparison = _compare([(s, out / s.name) for s in choices], data, out, workers, output)
    for metric, ranking in comparison.rankings.items():
        title = f"Mean ranks by {metric} over {ranking.n_blocks} hospitals, "
        title += f"critical difference {ranking.critical_difference:.2f}"
        output.table(title, ["arm", "mean rank"], [[a, r] for a, r in ranking.ranks.items()])
    output.result(
        {
            "scenarios": [scenario_json(result) for result in comparison.results],
            "rankings": {metric: vars(ranking) for metric, ranking in comparison.rankings.items()},
        }
    )


@app.command("list", epilog="Example: tumorboard simulate list tcga_luad")
def list_scenarios(
    scenario: Annotated[
        str | None, typer.Argument(help="Show the arms of this scenario instead.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """List the scenarios that ship with the package, or the arms of one."""
    from simulations.scenario.scenario import load_scenario, shipped_scenarios

    output = Output(json_output)
    if scenario is not None:
        entry = load_scenario(scenario)
        rows = [[arm.name, arm.kind, arm.special or "-"] for arm in entry.arms]
        output.table(entry.title or entry.name, ["arm", "kind", "what is special"], rows)
        output.result(_facts(entry))
        return
    entries = [load_scenario(path) for path in shipped_scenarios()]
    cells = [
        [s.name, s.title, len(s.arms), len(s.seeds) * s.folds.count * len(s.arms)] for s in entries
    ]
    output.table("Scenarios", ["name", "title", "arms", "cells"], cells)
    output.say("Arms of one: tumorboard simulate list NAME")
    output.result({"scenarios": [_facts(s) for s in entries]})


@app.command(epilog="Example: tumorboard simulate consortium --out consortium-run")
def consortium(
    out: Annotated[Path, typer.Option(help="New folder; a short path, for sockets.")],
    mode: Annotated[
        Literal["none", "local", "distributed"], typer.Option(help="Privacy mode of training.")
    ] = "distributed",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of training.")] = 20,
    sites: Annotated[int, typer.Option(min=2, help="Hospitals.")] = 3,
    patients: Annotated[int, typer.Option(min=30, help="Patients per hospital.")] = 60,
    json_output: JsonOption = False,
) -> None:
    """Run a whole consortium as processes of this machine: CA, TLS, SuperLink, hospitals, report.

    Patients are SYNTHETIC. At the end status, ledgers and audit logs of both sides are compared.
    """
    from simulations.consortium.consortium_demo import run_local_consortium

    output = Output(json_output)
    result = run_local_consortium(
        out, sites=sites, patients=patients, rounds=rounds, mode=mode, output=output
    )
    output.say("Seconds: " + ", ".join(f"{k} {v:.0f}" for k, v in result.seconds.items()))
    output.say(f"Report (SYNTHETIC patients): {result.page}")
    output.result(
        {
            "report": str(result.page),
            "seconds": result.seconds,
            "agreements": {a.what: a.holds for a in result.agreements},
        }
    )


def _chosen(name: str, seeds: int | None, arms: str | None) -> Scenario:
    from simulations.scenario.scenario import load_scenario

    choice = load_scenario(name)
    if seeds is not None:
        choice = choice.model_copy(update={"seeds": choice.seeds[:seeds]})
    return choice if arms is None else choice.with_arms([arm.strip() for arm in arms.split(",")])


def _compare(
    folders: list[tuple[Scenario, Path]], data: Path, out: Path, workers: int | None, output: Output
) -> ArmComparison:
    """Run scenarios in their folders, write and show how their arms compare."""
    from simulations.scenario.arm_comparison import compare
    from simulations.scenario.scenario_report import write_scenario_report
    from simulations.scenario.scenario_run import run_scenario
    from simulations.scenario.scenario_study import load_cohort

    results = [
        run_scenario(s, load_cohort(s, data), folder, workers=workers, output=output)
        for s, folder in folders
    ]
    comparison = compare(*results)
    comparison.write(out)
    page = write_scenario_report(comparison, out)
    for result in results:
        _show(result, output)
    output.say(f"Report: {page}")
    return comparison


def _facts(scenario: Scenario) -> dict[str, object]:
    return {
        "name": scenario.name,
        "title": scenario.title,
        "seeds": scenario.seeds,
        "folds": scenario.folds.count,
        "reference": scenario.reference,
        "arms": [{"name": a.name, "kind": a.kind, "special": a.special} for a in scenario.arms],
    }


def _show(result: ScenarioResult, output: Output) -> None:
    columns = ("metric", "arm", "mean", "sd", "difference", "p_holm")
    rows = [[row.get(name) for name in columns] for row in result.table.to_dict("records")]
    reference = result.scenario.reference
    titles = ["metric", "arm", "mean", "sd", f"minus {reference}", "p (Holm)"]
    output.table(result.scenario.title or result.scenario.name, titles, rows)
