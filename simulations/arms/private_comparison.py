"""Run every arm of a privacy comparison on every fold and seed, spread over the cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from simulations.arms.private_arms import PrivateArm, score, score_fold
from simulations.cohorts.cohort import Cohort
from simulations.cohorts.folds import SPLITS
from simulations.comparison.comparison import FloatArray, PairedDifference, paired_difference
from simulations.engines.worker_process import over_cores
from simulations.scenario.scenario import Scenario
from simulations.trials.clinical_floor import fit_floor

FLOOR = "clinical_floor"


@dataclass(frozen=True)
class PrivacyComparison:
    """Scores of all arms on the same folds.

    Attributes:
        cells: One row per (arm, seed, fold): arm, mode, epsilon, n_min, headline metrics.
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
    keys = [(seed, fold) for seed in scenario.seeds for fold in range(count)]
    jobs = [(split(cohort, count, seed) == fold,) for seed, fold in keys]
    scores = [
        scored.assign(seed=keys[place][0], fold=keys[place][1])
        for place, scored in over_cores(_one_fold, jobs, shared=(scenario, cohort, arms, clip))
    ]
    cells = pd.concat(scores).sort_values(["seed", "fold"], kind="stable")
    return PrivacyComparison(cells.reset_index(drop=True), count)


def _one_fold(
    scenario: Scenario,
    cohort: Cohort,
    arms: Sequence[PrivateArm],
    clip: float,
    tested: npt.NDArray[np.bool_],
) -> pd.DataFrame:
    train, test = cohort.take(np.flatnonzero(~tested)), cohort.take(np.flatnonzero(tested))
    scored = score_fold(scenario, train, test, arms, clip=clip)
    floor = fit_floor(train, test)
    row = {"arm": FLOOR, "mode": FLOOR, "epsilon": np.nan, "n_min": None}
    row |= score(scenario.endpoints, test, floor.risk, floor.response_prob)
    return pd.concat([scored, pd.DataFrame([row])], ignore_index=True)
