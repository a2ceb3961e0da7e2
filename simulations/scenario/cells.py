"""Run one cell of a comparison: one arm on one fold with one seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from simulations.cohorts.cohort import Cohort, concatenate
from simulations.engines.circumstances import as_recorded, as_trained
from simulations.scenario.scenario import Arm, Scenario
from simulations.scenario.scenario_study import arm_study
from simulations.trials.clinical_floor import fit_floor
from simulations.trials.memory_training import FloatArray, Trained, train_in_memory

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


def run_cell(
    scenario: Scenario, cohort: Cohort, fold_of: IntArray, cell: Cell, work: Path
) -> pd.DataFrame:
    """Return one row a test patient with the arm's predictions.

    Args:
        scenario: The scenario.
        cohort: All patients with their hospital.
        fold_of: (n,) fold of each patient.
        cell: What to run.
        work: Folder for the run's state; a killed cell goes on from there.
    """
    recorded = as_recorded(cohort, cell.arm.circumstances, cell.seed)
    train = recorded.take(np.flatnonzero(fold_of != cell.fold))
    test = recorded.take(np.flatnonzero(fold_of == cell.fold))
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
        trained = _train(scenario, cell, groups, work)
        if not trained.own:
            return trained.scores(test)
        return _by_hospital(test, lambda site, own: trained.scores(own, site))

    def separately(site: str, own: Cohort) -> tuple[FloatArray, FloatArray]:
        alone = cell.arm.kind == "local_only"
        chosen = {s: group for s, group in groups.items() if (s == site) == alone}
        if not chosen:  # a hospital that was held out whole has no model of its own
            return np.full(len(own), np.nan), np.full(len(own), np.nan)
        return _train(scenario, cell, chosen, work / site).scores(own)

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
    return train_in_memory(study, groups, work, met=cell.arm.circumstances, seed=cell.seed)
