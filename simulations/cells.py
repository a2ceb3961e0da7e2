"""Runs one cell of a comparison: one arm on one fold with one seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from common.cli_output import Output
from common.models.parameters import load_arrays
from common.models.registry import build_model
from common.study import Study
from common.wire import Arrays
from simulations.clinical_floor import fit_floor
from simulations.cohorts.cohort import Cohort
from simulations.consortium_run import run_in_process
from simulations.dataset_predictions import predict_dataset
from simulations.identities import with_identities
from simulations.memory_sites import memory_agents
from simulations.scenario import Arm, Scenario
from simulations.scenario_study import arm_study

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
    train = cohort.take(np.flatnonzero(fold_of != cell.fold))
    test = cohort.take(np.flatnonzero(fold_of == cell.fold))
    table = pd.DataFrame(
        {
            "arm": cell.arm.name,
            "seed": cell.seed,
            "fold": cell.fold,
            "patient_id": test.patient_ids,
            "hospital": test.hospital,
            "time_months": test.time_months,
            "event": test.event,
            "response": test.response,
        }
    )
    risk, prob = _predict(scenario, train, test, cell, work)
    return table.assign(risk=risk, response_prob=prob)


def _predict(
    scenario: Scenario, train: Cohort, test: Cohort, cell: Cell, work: Path
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if cell.arm.kind == "clinical_floor":
        outcomes = (train.response, train.time_months, train.event)
        floor = fit_floor(train.clinical, outcomes, test.clinical)
        return floor.risk, floor.response_prob
    if cell.arm.kind != "local_only":
        groups = {"pooled": train} if cell.arm.kind == "pooled" else by_hospital(train)
        study, model = _train(scenario, cell, groups, work)
        return _scores(study, model, test)
    risk, prob = np.full(len(test), np.nan), np.full(len(test), np.nan)
    for hospital, own in by_hospital(train).items():
        here = np.flatnonzero(test.hospital == hospital)
        if len(here):
            study, model = _train(scenario, cell, {hospital: own}, work / hospital)
            risk[here], prob[here] = _scores(study, model, test.take(here))
    return risk, prob


def by_hospital(cohort: Cohort) -> dict[str, Cohort]:
    """Return the patients of each hospital, in name order."""
    return {
        str(name): cohort.take(np.flatnonzero(cohort.hospital == name))
        for name in np.unique(cohort.hospital)
    }


def _train(
    scenario: Scenario, cell: Cell, groups: Mapping[str, Cohort], work: Path
) -> tuple[Study, Arrays]:
    n_train = sum(len(group) for group in groups.values())
    first = next(iter(groups.values()))
    study = arm_study(scenario, cell.arm, first, sorted(groups), n_train=n_train, seed=cell.seed)
    if study.privacy.mode == "distributed":
        study = with_identities(study, work / "sites")
    agents = memory_agents(study, groups, work / "sites")
    result = run_in_process(study, agents, work / "run", output=Output(json_mode=True))
    return study, result.arrays


def _scores(
    study: Study, arrays: Arrays, test: Cohort
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    model = build_model(study)
    load_arrays(model, arrays)
    predicted = predict_dataset(model, test.dataset(study), study)
    return predicted.risk, predicted.response_prob
