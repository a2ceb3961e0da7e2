"""Run all cells of a scenario over the cores, resumably, and write its table."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from common.commands.cli_output import Output
from common.contract import canonical_json
from common.errors import ConfigError
from common.storage.atomic_file import whole_or_nothing
from simulations.cohorts.cohort import Cohort, concatenate
from simulations.cohorts.folds import SPLITS
from simulations.comparison.comparison import cell_metrics, compare_arms
from simulations.engines.circumstances import as_recorded, as_trained
from simulations.engines.worker_process import over_cores
from simulations.scenario.scenario import Arm, Scenario
from simulations.scenario.scenario_study import arm_study
from simulations.trials.clinical_floor import fit_floor
from simulations.trials.memory_training import FloatArray, Trained, train_in_memory

SCENARIO_FILE = "scenario.json"
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cell:
    """One arm on one fold with one seed."""

    arm: Arm
    seed: int
    fold: int

    @property
    def name(self) -> str:
        """File name of the cell's results."""
        return f"{self.arm.name}_s{self.seed}_f{self.fold}"


@dataclass(frozen=True)
class ScenarioResult:
    """Predictions of every arm of a scenario, and what they amount to.

    Attributes:
        scenario: The scenario.
        predictions: One row per arm, seed and test patient: outcomes beside `risk` (higher is
            worse) and `response_prob`.
        cells: Metrics of each (arm, seed, fold).
        table: Mean, SD and paired difference to the reference of each (arm, metric).
        hospitals: Number of patients by hospital.
        notes: Caveats of the cohort.
    """

    scenario: Scenario
    predictions: pd.DataFrame
    cells: pd.DataFrame
    table: pd.DataFrame
    hospitals: dict[str, int]
    notes: tuple[str, ...]

    def against(self, reference: str) -> "ScenarioResult":
        """Return the same predictions, compared with another arm.

        Raises:
            ConfigError: There is no such arm.
        """
        arms = [arm.name for arm in self.scenario.arms]
        if reference not in arms:
            raise ConfigError(f"there is no arm '{reference}'", cure=f"one of {', '.join(arms)}")
        scenario = self.scenario.model_copy(update={"reference": reference})
        return replace(self, scenario=scenario, table=_table(self.cells, scenario))


def run_scenario(
    scenario: Scenario,
    cohort: Cohort,
    folder: Path,
    *,
    workers: int | None = None,
    output: Output | None = None,
) -> ScenarioResult:
    """Run what is not yet done, then compare all arms.

    A cell's predictions are written whole when it ends; a killed run continues with the missing
    cells and gives the same table.

    Args:
        scenario: What to run.
        cohort: Its patients, as `load_cohort` returns them.
        folder: For results and state; of this scenario alone.
        workers: Processes; every core by default.
        output: Where progress is shown; on standard error by default.

    Raises:
        ConfigError: The folder holds the results of another scenario.
        DataError: The cohort lacks a feature set of the scenario.
    """
    cohort = cohort.with_features(scenario.needed_features)
    _claim(folder, scenario)
    cells = list(all_cells(scenario))
    missing = [cell for cell in cells if not _result_file(folder, cell).is_file()]
    with (output or Output()).progress(len(cells), scenario.name) as progress:
        progress.skip(len(cells) - len(missing), "resumed")
        jobs, shared = [(cell,) for cell in missing], (scenario, cohort, folder)
        for place, _ in over_cores(_run_one, jobs, shared=shared, workers=workers):
            progress.advance(1, missing[place].name)
    files = [_result_file(folder, cell) for cell in cells]
    predictions = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    metrics = cell_metrics(predictions)
    table = _table(metrics, scenario)
    _write_tables(folder, predictions, metrics, table)
    return ScenarioResult(scenario, predictions, metrics, table, cohort.hospitals, cohort.notes)


def all_cells(scenario: Scenario) -> Iterator[Cell]:
    """Yield every (arm, seed, fold) of a scenario."""
    for seed in scenario.seeds:
        for fold in range(scenario.folds.count):
            for arm in scenario.arms:
                yield Cell(arm, seed, fold)


def _table(cells: pd.DataFrame, scenario: Scenario) -> pd.DataFrame:
    return compare_arms(cells, scenario.reference, test_share=1 / (scenario.folds.count - 1))


def _run_one(scenario: Scenario, cohort: Cohort, folder: Path, cell: Cell) -> None:
    fold_of = SPLITS[scenario.folds.rule](cohort, scenario.folds.count, cell.seed)
    work = folder / "work" / cell.name
    table = _run_cell(scenario, cohort, fold_of, cell, work)
    with whole_or_nothing(_result_file(folder, cell)) as partial:
        table.to_parquet(partial, index=False)
    shutil.rmtree(work, ignore_errors=True)


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


def _run_cell(
    scenario: Scenario, cohort: Cohort, fold_of: IntArray, cell: Cell, work: Path
) -> pd.DataFrame:
    """Return one row per test patient with the arm's predictions; `fold_of` is (n,)."""
    patients = as_recorded(cohort, cell.arm.circumstances, cell.seed)
    train = patients.take(np.flatnonzero(fold_of != cell.fold))
    test = patients.take(np.flatnonzero(fold_of == cell.fold))
    risk, prob = _predict(scenario, train, test, cell, work)
    return test.outcomes.assign(
        arm=cell.arm.name, seed=cell.seed, fold=cell.fold, risk=risk, response_prob=prob
    )


def _predict(
    scenario: Scenario, train: Cohort, test: Cohort, cell: Cell, work: Path
) -> tuple[FloatArray, FloatArray]:
    groups = as_trained(train.by_hospital(), cell.arm.circumstances, cell.seed)
    together = concatenate(list(groups.values()))
    if cell.arm.kind == "clinical_floor":
        floor = fit_floor(together, test)
        return floor.risk, floor.response_prob
    if cell.arm.kind == "pooled":
        return _train(scenario, cell, {"pooled": together}, work).scores(test)
    if cell.arm.kind == "federated":
        predictor = _train(scenario, cell, groups, work)
        if not predictor.own:
            return predictor.scores(test)
        return _by_hospital(test, lambda site, own: predictor.scores(own, site))

    def separately(site: str, own: Cohort) -> tuple[FloatArray, FloatArray]:
        alone = cell.arm.kind == "local_only"
        selection = {s: group for s, group in groups.items() if (s == site) == alone}
        if not selection:  # a hospital that was held out whole has no model of its own
            return np.full(len(own), np.nan), np.full(len(own), np.nan)
        return _train(scenario, cell, selection, work / site).scores(own)

    return _by_hospital(test, separately)


def _by_hospital(
    test: Cohort, score: Callable[[str, Cohort], tuple[FloatArray, FloatArray]]
) -> tuple[FloatArray, FloatArray]:
    risk, prob = np.full(len(test), np.nan), np.full(len(test), np.nan)
    for site, own in test.by_hospital().items():
        here = test.hospital == site
        risk[here], prob[here] = score(site, own)
    return risk, prob


def _train(scenario: Scenario, cell: Cell, groups: Mapping[str, Cohort], work: Path) -> Trained:
    sizes = {site: len(group) for site, group in groups.items()}
    study = arm_study(
        scenario,
        cell.arm,
        next(iter(groups.values())),
        sorted(groups),
        n_train=sum(sizes.values()),
        seed=cell.seed,
        sizes=sizes,
    )
    return train_in_memory(study, groups, work, setup=cell.arm.circumstances, seed=cell.seed)
