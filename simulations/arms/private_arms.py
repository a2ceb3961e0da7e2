"""Compare privacy modes and budgets: every arm on every fold and seed, spread over the cores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from common.privacy.plan import PrivacyPlan
from common.study.study import Endpoints
from simulations.cohorts.cohort import Cohort
from simulations.cohorts.folds import SPLITS
from simulations.comparison.arm_metrics import arm_scores
from simulations.comparison.comparison import FloatArray, PairedDifference, paired_difference
from simulations.engines.worker_process import over_cores
from simulations.scenario.scenario import Arm, Scenario
from simulations.scenario.scenario_study import arm_study
from simulations.trials.clinical_floor import fit_floor
from simulations.trials.exact_evaluation import predict_cohort
from simulations.trials.site_trials import SiteTrial, train_by_site

EPSILONS = (1.0, 3.0, 8.0)
FLOOR = "clinical_floor"


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

    mode: Literal["together", "distributed", "local", "alone"]
    epsilon: float | None = None
    n_min: int | None = None
    draws: int = 1

    @property
    def name(self) -> str:
        """Name in tables and files."""
        budget = "none" if self.epsilon is None else f"{self.epsilon:g}"
        suffix = "" if self.n_min is None else f"-n{self.n_min}"
        return f"{self.mode}{suffix}-{budget}"

    def plan(self, clip: float) -> PrivacyPlan:
        """Return the privacy plan of a study of this arm, clipping at `clip`."""
        if self.epsilon is None:
            return PrivacyPlan(mode="none")
        mode = "distributed" if self.mode == "distributed" else "local"
        return PrivacyPlan(mode=mode, epsilon=self.epsilon, clip=clip, n_min=self.n_min)


@dataclass(frozen=True)
class PrivacyComparison:
    """Scores of all arms on the same folds.

    Attributes:
        cells: One row per (arm, seed, fold): arm, headline metrics, seed, fold.
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
        wide = self.wide(metric).astype(np.float64)
        first, second = wide[arm].to_numpy(), wide[reference].to_numpy()
        return paired_difference(first, second, test_share=1 / (self.folds - 1))

    def table(self, metric: str) -> str:
        """Return one line an arm: mean, SD over seeds."""
        return "\n".join(
            f"  {arm:<22} {self.mean(arm, metric):.3f}  "
            f"SD over seeds {self.seed_sd(arm, metric):.3f}"
            for arm in self.cells["arm"].unique()
        )


def compare_private_arms(
    scenario: Scenario,
    cohort: Cohort,
    arms: Sequence[PrivateArm],
    *,
    clip: float,
    workers: int | None = None,
) -> PrivacyComparison:
    """Train and score every arm on every fold of every seed of the scenario.

    A model is scored on the test patients of all sites. That of a site alone too; its arm's
    figure is the mean over sites, so that no scores of different models are ranked together.

    Args:
        scenario: Endpoints, features, model, plan, folds and seeds.
        cohort: All patients with their hospital.
        arms: What to train.
        clip: Public L2 bound of one patient's gradient.
        workers: Processes; every core by default.

    Returns:
        Scores of the arms, and of Cox and logistic regression on clinical columns (`FLOOR`); NaN
        where there is no such endpoint or no comparable pair.
    """
    split, count = SPLITS[scenario.folds.rule], scenario.folds.count
    keys = [(seed, fold) for seed in scenario.seeds for fold in range(count)]
    jobs = [(split(cohort, count, seed) == fold,) for seed, fold in keys]
    shared = (scenario, cohort, arms, clip)
    scores = [
        fold_scores.assign(seed=keys[place][0], fold=keys[place][1])
        for place, fold_scores in over_cores(_one_fold, jobs, shared=shared, workers=workers)
    ]
    cells = pd.concat(scores).sort_values(["seed", "fold"], kind="stable")
    return PrivacyComparison(cells.reset_index(drop=True), count)


def _one_fold(
    scenario: Scenario,
    cohort: Cohort,
    arms: Sequence[PrivateArm],
    clip: float,
    in_test: npt.NDArray[np.bool_],
) -> pd.DataFrame:
    """Return one row per arm: arm and headline metrics over the test patients of all sites."""
    train, test = cohort.take(np.flatnonzero(~in_test)), cohort.take(np.flatnonzero(in_test))
    jobs = [(arm, trial) for arm in arms for trial in _trials(scenario, train, arm, clip)]
    trials = [trial for _, trial in jobs]
    patients = test.dataset(trials[0].study)
    rows: list[dict[str, object]] = []
    models = train_by_site(train.dataset(trials[0].study), trials)
    for (arm, trial), arrays in zip(jobs, models, strict=True):
        predictions = predict_cohort(trial.study, arrays, patients)
        scores = _score(scenario.endpoints, test, predictions.risk, predictions.response_prob)
        rows.append({"arm": arm.name, **scores})
    floor = fit_floor(train, test)
    scores = _score(scenario.endpoints, test, floor.risk, floor.response_prob)
    rows.append({"arm": FLOOR, **scores})
    return pd.DataFrame(rows).groupby("arm", sort=False).mean().reset_index()


def _trials(scenario: Scenario, train: Cohort, arm: PrivateArm, clip: float) -> Iterator[SiteTrial]:
    everyone = np.arange(len(train))
    sites = list(train.hospitals)
    groups: list[tuple[list[str], npt.NDArray[np.intp]]] = [(sites, everyone)]
    if arm.mode == "alone":
        groups = [([site], np.flatnonzero(train.hospital == site)) for site in sites]
    plan = Arm(name=arm.name, privacy=arm.plan(clip))
    for roster, rows in groups:
        study = arm_study(scenario, plan, train, roster, n_train=len(rows), seed=0)
        for _ in range(arm.draws):
            yield SiteTrial(study, {roster[0]: rows})


def _score(
    endpoints: Endpoints, test: Cohort, risk: FloatArray, response_prob: FloatArray
) -> dict[str, float]:
    """Return the headline metrics; a task that is not asked for is NaN."""
    table = test.outcomes.assign(
        risk=risk if endpoints.survival else np.nan,
        response_prob=response_prob if endpoints.response else np.nan,
    )
    return arm_scores(table.drop(columns="hospital"))
