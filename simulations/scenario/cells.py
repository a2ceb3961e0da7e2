"""Runs one cell of a comparison: one arm on one fold with one seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from common.commands.cli_output import Output
from common.models.base.build import build_model
from common.models.base.parameters import load_arrays
from common.study.study import Study
from common.wire import Arrays
from simulations.cohorts.cohort import Cohort, concatenate
from simulations.engines.circumstances import as_recorded, as_trained
from simulations.engines.consortium_run import run_in_process
from simulations.engines.identities import with_identities
from simulations.engines.memory_sites import memory_agents, own_models
from simulations.engines.unreliable_site import unreliable
from simulations.scenario.scenario import Arm, Scenario
from simulations.scenario.scenario_study import arm_study
from simulations.trials.clinical_floor import fit_floor
from simulations.trials.dataset_predictions import predict_dataset

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


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
) -> tuple[FloatArray, FloatArray]:
    groups = as_trained(by_hospital(train), cell.arm.circumstances, cell.seed)
    together = concatenate(list(groups.values()))
    if cell.arm.kind == "clinical_floor":
        outcomes = (together.response, together.time_months, together.event)
        floor = fit_floor(together.clinical, outcomes, test.clinical)
        return floor.risk, floor.response_prob
    if cell.arm.kind == "pooled":
        trained = _train(scenario, cell, {"pooled": together}, work)
        return trained.scores(test, "")
    if cell.arm.kind == "federated":
        trained = _train(scenario, cell, groups, work)
        if not trained.differs_by_site:
            return trained.scores(test, "")
        return _by_hospital(test, lambda site, own: trained.scores(own, site))

    def separately(site: str, own: Cohort) -> tuple[FloatArray, FloatArray]:
        alone = cell.arm.kind == "local_only"
        chosen = {s: group for s, group in groups.items() if (s == site) == alone}
        if not chosen:  # a hospital that was held out whole has no model of its own
            return np.full(len(own), np.nan), np.full(len(own), np.nan)
        return _train(scenario, cell, chosen, work / site).scores(own, "")

    return _by_hospital(test, separately)


def _by_hospital(
    test: Cohort, score: Callable[[str, Cohort], tuple[FloatArray, FloatArray]]
) -> tuple[FloatArray, FloatArray]:
    risk, prob = np.full(len(test), np.nan), np.full(len(test), np.nan)
    for site in sorted({str(name) for name in test.hospital}):
        here = np.flatnonzero(test.hospital == site)
        risk[here], prob[here] = score(site, test.take(here))
    return risk, prob


def by_hospital(cohort: Cohort) -> dict[str, Cohort]:
    """Return the patients of each hospital, in name order."""
    return {
        str(name): cohort.take(np.flatnonzero(cohort.hospital == name))
        for name in np.unique(cohort.hospital)
    }


@dataclass(frozen=True)
class Trained:
    """A finished run of one arm.

    Attributes:
        study: What was agreed on.
        arrays: The global model.
        own: Site -> the model it uses itself, where sites keep something for themselves.
    """

    study: Study
    arrays: Arrays
    own: dict[str, Arrays]

    @property
    def differs_by_site(self) -> bool:
        """Whether sites use different models."""
        return bool(self.own)

    def scores(self, test: Cohort, site: str) -> tuple[FloatArray, FloatArray]:
        """Return (risk, probability of response) of patients, by the model that `site` uses."""
        model = build_model(self.study)
        load_arrays(model, self.own.get(site, self.arrays))
        predicted = predict_dataset(model, test.dataset(self.study), self.study)
        return predicted.risk, predicted.response_prob


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
    if study.privacy.mode == "distributed":
        study = with_identities(study, work / "sites")
    agents = memory_agents(study, groups, work / "sites")
    met = cell.arm.circumstances
    if met.has_silence or met.poison is not None:
        agents = unreliable(agents, groups, met, cell.seed)
    result = run_in_process(study, agents, work / "run", output=Output(json_mode=True))
    own = own_models(study, groups, work / "sites", result.run_id, result.arrays)
    return Trained(study, result.arrays, own)
