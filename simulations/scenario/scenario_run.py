"""Runs all cells of a scenario over the cores, resumably, and writes its table."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from common.commands.cli_output import Output
from common.contract import canonical_json
from common.errors import ConfigError
from common.storage.atomic_file import whole_or_nothing
from simulations.cohorts.folds import whole_hospital, within_hospital
from simulations.comparison.comparison import cell_metrics, compare
from simulations.engines.worker_process import start_worker
from simulations.scenario.cells import Cell, run_cell
from simulations.scenario.scenario import Scenario
from simulations.scenario.scenario_study import load_cohort

SCENARIO_FILE = "scenario.json"


@dataclass(frozen=True)
class ScenarioResult:
    """What a scenario gave.

    Attributes:
        scenario: The scenario.
        predictions: One row an arm, seed and test patient.
        cells: Metrics of each (arm, seed, fold).
        table: Mean, SD and paired difference to the reference of each (arm, metric).
        hospitals: Patients by hospital.
        notes: Caveats of the cohort.
    """

    scenario: Scenario
    predictions: pd.DataFrame
    cells: pd.DataFrame
    table: pd.DataFrame
    hospitals: dict[str, int]
    notes: tuple[str, ...]


def run_scenario(
    scenario: Scenario, data: Path, folder: Path, *, workers: int, output: Output
) -> ScenarioResult:
    """Run what is not yet done, then compare all arms.

    A cell's predictions are written whole when it ends; a killed run goes on with the missing
    cells and gives the same table.

    Raises:
        ConfigError: The folder holds the results of another scenario.
        DataError: The public data is missing.
    """
    cohort = load_cohort(scenario, data)  # before anything is written
    _claim(folder, scenario)
    cells = list(all_cells(scenario))
    missing = [cell for cell in cells if not _result_file(folder, cell).is_file()]
    with output.progress(len(cells), scenario.name) as progress:
        progress.skip(len(cells) - len(missing), "resumed")
        for cell in _run_all(scenario, data, folder, missing, workers):
            progress.advance(1, cell.name)
    predictions = pd.concat(
        [pd.read_parquet(_result_file(folder, cell)) for cell in cells], ignore_index=True
    )
    metrics = cell_metrics(predictions)
    table = compare(metrics, scenario.reference, test_share=1 / (scenario.folds.count - 1))
    _write_tables(folder, predictions, metrics, table)
    return ScenarioResult(scenario, predictions, metrics, table, cohort.hospitals, cohort.notes)


def all_cells(scenario: Scenario) -> Iterator[Cell]:
    """Yield every (arm, seed, fold) of a scenario."""
    for seed in scenario.seeds:
        for fold in range(scenario.folds.count):
            for arm in scenario.arms:
                yield Cell(arm, seed, fold)


def _run_all(
    scenario: Scenario, data: Path, folder: Path, cells: list[Cell], workers: int
) -> Iterator[Cell]:
    if workers == 1 or len(cells) <= 1:
        for cell in cells:
            yield _run_one(scenario, data, folder, cell)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker) as pool:
        futures = [pool.submit(_run_one, scenario, data, folder, cell) for cell in cells]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _run_one(scenario: Scenario, data: Path, folder: Path, cell: Cell) -> Cell:
    cohort = load_cohort(scenario, data)
    assign = within_hospital if scenario.folds.rule == "within_hospital" else whole_hospital
    fold_of = assign(cohort, scenario.folds.count, cell.seed)
    work = folder / "work" / cell.name
    table = run_cell(scenario, cohort, fold_of, cell, work)
    with whole_or_nothing(_result_file(folder, cell)) as partial:
        table.to_parquet(partial, index=False)
    shutil.rmtree(work, ignore_errors=True)
    return cell


def _result_file(folder: Path, cell: Cell) -> Path:
    return folder / "cells" / f"{cell.name}.parquet"


def _claim(folder: Path, scenario: Scenario) -> None:
    marker = folder / SCENARIO_FILE
    text = canonical_json(scenario.model_dump(mode="json"))
    if marker.is_file() and marker.read_text(encoding="utf-8") != text:
        raise ConfigError(
            "the folder holds the results of another scenario, or of an earlier version of it",
            where=str(folder),
            why="cells of different scenarios must not be mixed in one table",
            cure="choose another --out, or remove the folder",
        )
    with whole_or_nothing(marker) as partial:
        partial.write_text(text, encoding="utf-8")


def _write_tables(
    folder: Path, predictions: pd.DataFrame, cells: pd.DataFrame, table: pd.DataFrame
) -> None:
    with whole_or_nothing(folder / "predictions.parquet") as partial:
        predictions.to_parquet(partial, index=False)
    for name, frame in (("cells.csv", cells), ("comparison.csv", table)):
        with whole_or_nothing(folder / name) as partial:
            frame.to_csv(partial, index=False)
