"""Run the arms of a privacy comparison: one cohort under many budgets and modes, by fold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from client.data.dataset import PatientDataset
from common.privacy.plan import PrivacyPlan
from common.study.study import Endpoints, Study
from common.wire import Arrays
from simulations.cohorts.cohort import Cohort
from simulations.comparison.arm_metrics import arm_scores
from simulations.scenario.scenario import Arm, Scenario
from simulations.scenario.scenario_study import arm_study
from simulations.trials.cohort_predictions import predict_cohort
from simulations.trials.mechanism_trials import Trial, train_together

Mode = Literal["together", "distributed", "local", "alone"]
EPSILONS = (1.0, 3.0, 8.0)


@dataclass(frozen=True)
class PrivateArm:
    """One way to train.

    Attributes:
        mode: `together`: all patients without privacy; `distributed` and `local`: all sites in
            that mode of the product; `alone`: every site by itself (mode local, or none).
        epsilon: Budget of training; None = no privacy.
        n_min: Fewest sites whose sum is opened; None = the product's default.
        draws: How often the noise is drawn; scores are averaged over draws.
    """

    mode: Mode
    epsilon: float | None = None
    n_min: int | None = None
    draws: int = 1

    @property
    def name(self) -> str:
        """Name in tables and files."""
        budget = "none" if self.epsilon is None else f"{self.epsilon:g}"
        opened = "" if self.n_min is None else f"-n{self.n_min}"
        return f"{self.mode}{opened}-{budget}"

    def plan(self, clip: float) -> PrivacyPlan:
        """Return the privacy plan of a study of this arm, clipping at `clip`."""
        if self.epsilon is None:
            return PrivacyPlan(mode="none")
        mode = "distributed" if self.mode == "distributed" else "local"
        return PrivacyPlan(mode=mode, epsilon=self.epsilon, clip=clip, n_min=self.n_min)


def score_fold(
    scenario: Scenario, train: Cohort, test: Cohort, arms: Sequence[PrivateArm], *, clip: float
) -> pd.DataFrame:
    """Return how well every arm ranks the test patients.

    A model is scored on the test patients of all sites. That of a site alone too; its arm's
    figure is the mean over sites, so that no scores of different models are ranked together.

    Args:
        scenario: Endpoints, features, model and training plan.
        train: Training patients of all sites.
        test: Test patients of all sites.
        arms: What to train.
        clip: Public L2 bound of one patient's gradient.

    Returns:
        One row per arm: arm, mode, epsilon, n_min and the headline metrics; NaN where there is no
        such endpoint or no comparable pair.
    """
    owners, trials = [], []
    for arm in arms:
        for trial in _trials(scenario, train, arm, clip):
            owners.append(arm)
            trials.append(trial)
    trained = train_together(train.dataset(trials[0].study), trials)
    tested = test.dataset(trials[0].study)
    rows = [
        {
            "arm": arm.name,
            "mode": arm.mode,
            "epsilon": np.nan if arm.epsilon is None else arm.epsilon,
            "n_min": arm.n_min,
            **_score(trial.study, arrays, tested, test),
        }
        for arm, trial, arrays in zip(owners, trials, trained, strict=True)
    ]
    keys = ["arm", "mode", "epsilon", "n_min"]
    return pd.DataFrame(rows).groupby(keys, sort=False, dropna=False).mean().reset_index()


def _trials(scenario: Scenario, train: Cohort, arm: PrivateArm, clip: float) -> Iterator[Trial]:
    everyone = np.arange(len(train))
    sites = list(train.hospitals)
    groups: list[tuple[list[str], npt.NDArray[np.intp]]] = [(sites, everyone)]
    if arm.mode == "alone":
        groups = [([site], np.flatnonzero(train.hospital == site)) for site in sites]
    plan = Arm(name=arm.name, privacy=arm.plan(clip))
    for roster, rows in groups:
        study = arm_study(scenario, plan, train, roster, n_train=len(rows), seed=0)
        for _ in range(arm.draws):
            yield Trial(study, rows)


def _score(study: Study, arrays: Arrays, tested: PatientDataset, test: Cohort) -> dict[str, float]:
    predicted = predict_cohort(study, arrays, tested)
    return score(study.endpoints, test, predicted.risk, predicted.response_prob)


def score(
    endpoints: Endpoints,
    test: Cohort,
    risk: npt.NDArray[np.float64],
    response_prob: npt.NDArray[np.float64],
) -> dict[str, float]:
    """Return the headline metrics over the test patients of all sites.

    Args:
        endpoints: A task that is not asked for is NaN.
        test: Test patients.
        risk: (n,) higher is worse.
        response_prob: (n,).
    """
    table = test.outcomes.assign(
        risk=risk if endpoints.survival else np.nan,
        response_prob=response_prob if endpoints.response else np.nan,
    )
    return arm_scores(table.drop(columns="hospital"))
