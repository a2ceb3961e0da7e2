"""Several scenarios, one table: every cell that is missing is run, then all arms are compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from common.commands.cli_output import Output
from common.storage.atomic_file import whole_or_nothing
from simulations.comparison.hospital_metrics import hospital_metrics, tidy
from simulations.scenario.scenario import Scenario
from simulations.scenario.scenario_run import ScenarioResult, run_scenario

RESULTS = "results"


def compare_scenarios(
    scenarios: Sequence[Scenario], data: Path, folder: Path, *, workers: int, output: Output
) -> list[ScenarioResult]:
    """Run what is not yet done of every scenario and write `results.parquet` and `results.csv`.

    Each scenario has its own folder below `folder`; a killed comparison goes on with the cells
    that are missing and gives the same files.

    Raises:
        ConfigError: A folder holds the results of another scenario.
        DataError: The public data is missing.
    """
    results = [
        run_scenario(s, data, folder / s.name, workers=workers, output=output) for s in scenarios
    ]
    write_results(results, folder)
    return results


def write_results(results: Sequence[ScenarioResult], folder: Path) -> pd.DataFrame:
    """Write one row a figure as Parquet and CSV, and return the table."""
    table = pd.concat(
        [tidy(r.cells, hospital_metrics(r.predictions), r.scenario.name) for r in results],
        ignore_index=True,
    )
    with whole_or_nothing(folder / f"{RESULTS}.parquet") as partial:
        table.to_parquet(partial, index=False)
    with whole_or_nothing(folder / f"{RESULTS}.csv") as partial:
        table.to_csv(partial, index=False)
    return table
