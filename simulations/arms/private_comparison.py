"""Every arm of a privacy comparison on every fold and seed, spread over the cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from simulations.arms.private_arms import PrivateArm, score, score_fold
from simulations.cohorts.cohort import Cohort
from simulations.cohorts.folds import whole_hospital, within_hospital
from simulations.comparison.comparison import FloatArray, PairedDifference, paired_difference
from simulations.scenario.scenario import Scenario
from simulations.trials.clinical_floor import fit_floor

FLOOR = "clinical_floor"
SPLITS = {"within_hospital": within_hospital, "whole_hospital": whole_hospital}


@dataclass(frozen=True)
class PrivacyComparison:
    """Scores of all arms on the same folds.

    Attributes:
        cells: One row an (arm, seed, fold): arm, mode, epsilon, n_min, c_index, response_auc.
        folds: Number of folds a seed.
    """

    cells: pd.DataFrame
    folds: int

    def wide(self, metric: str) -> pd.DataFrame:
        """Return the metric with a row a (seed, fold) and a column an arm."""
        return self.cells.pivot(index=["seed", "fold"], columns="arm", values=metric)

    def mean(self, arm: str, metric: str) -> float:
        """Return the mean over folds and seeds."""
        return float(self.wide(metric)[arm].mean())

    def seed_sd(self, arm: str, metric: str) -> float:
        """Return the SD over seeds of the mean over folds."""
        return float(self.wide(metric)[arm].groupby("seed").mean().std(ddof=1))

    def difference(self, arm: str, reference: str, metric: str) -> PairedDifference:
        """Return arm minus reference over the same folds, Nadeau-Bengio interval."""
        wide = self.wide(metric)
        columns: list[FloatArray] = [
            wide[name].to_numpy(dtype=np.float64) for name in (arm, reference)
        ]
        return paired_difference(columns[0], columns[1], test_share=1 / (self.folds - 1))

    def table(self, metric: str) -> str:
        """Return one line an arm: mean, SD over seeds."""
        arms = list(dict.fromkeys(self.cells["arm"]))
        told = {arm: (self.mean(arm, metric), self.seed_sd(arm, metric)) for arm in arms}
        return "\n".join(
            f"  {arm:<22} {mean:.3f}  SD over seeds {sd:.3f}" for arm, (mean, sd) in told.items()
        )


def compare_private_arms(
    scenario: Scenario, cohort: Cohort, arms: Sequence[PrivateArm], *, clip: float
) -> PrivacyComparison:
    """Train and score every arm on every fold of every seed of the scenario.

    Args:
        scenario: Endpoints, features, model, plan, folds and seeds.
        cohort: All patients with their hospital.
        arms: What to train.
        clip: Public L2 bound of one patient's gradient.

    Returns:
        Scores of the arms, and of Cox and logistic regression on clinical columns (`FLOOR`).
    """
    split, count = SPLITS[scenario.folds.rule], scenario.folds.count
    jobs = [
        (seed, fold, split(cohort, count, seed) == fold)
        for seed in scenario.seeds
        for fold in range(count)
    ]
    workers = min(len(os.sched_getaffinity(0)), len(jobs))
    context = multiprocessing.get_context("spawn")
    found = []
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        running = {
            pool.submit(
                _one_fold,
                scenario,
                cohort.take(np.flatnonzero(~tested)),
                cohort.take(np.flatnonzero(tested)),
                arms,
                clip,
            ): (seed, fold)
            for seed, fold, tested in jobs
        }
        for future in as_completed(running):
            seed, fold = running[future]
            found.append(future.result().assign(seed=seed, fold=fold))
    cells = pd.concat(found).sort_values(["seed", "fold"], kind="stable")
    return PrivacyComparison(cells.reset_index(drop=True), count)


def _one_fold(
    scenario: Scenario, train: Cohort, test: Cohort, arms: Sequence[PrivateArm], clip: float
) -> pd.DataFrame:
    torch.set_num_threads(1)
    scored = score_fold(scenario, train, test, arms, clip=clip)
    floor = fit_floor(train, test)
    row = {"arm": FLOOR, "mode": FLOOR, "epsilon": np.nan, "n_min": None}
    row |= score(scenario.endpoints, test, floor.risk, floor.response_prob)
    return pd.concat([scored, pd.DataFrame([row])], ignore_index=True)
