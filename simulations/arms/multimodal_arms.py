"""Train the arms of a multimodal comparison, many models at once.

What is trained is what the product trains; `simulations.trials.mechanism_trials` computes the
gradients of many folds, seeds and arms in one call. Sums of gradients over hospitals and over all
patients in one place differ by rounding alone; `federated` is trained hospital by hospital all the
same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from common.study.study import Study
from common.wire import Arrays
from simulations.cohorts.cohort import Cohort
from simulations.cohorts.folds import within_hospital
from simulations.engines.circumstances import Circumstances, as_recorded
from simulations.scenario.scenario import Arm, Scenario
from simulations.scenario.scenario_study import arm_study
from simulations.trials.clinical_floor import fit_floor
from simulations.trials.cohort_predictions import predict_cohort
from simulations.trials.federated_epochs import train_federated_epochs
from simulations.trials.mechanism_trials import Trial, train_together
from simulations.trials.site_trials import SiteTrial, train_by_site

IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Job:
    """One model to train, and whom it is tested on.

    Attributes:
        arm: Name of the arm.
        fold: Fold that is held out.
        study: What is trained.
        train: Rows of its training patients.
        test: Rows of the patients it predicts.
    """

    arm: str
    fold: int
    study: Study
    train: IntArray
    test: IntArray


def score_seed(scenario: Scenario, cohort: Cohort, seed: int) -> pd.DataFrame:
    """Return one row an (arm, fold, test patient) for one seed, ready for `cell_metrics`.

    Arms: `pooled`, `federated`, `fedavg`, `leave_one_out`, `local_only`, `clinical_floor`,
    `<feature>_only`, `half_lack_<feature>` (half of the hospitals have none of it, in training
    and in use) and `<feature>_missing` (the federated model on patients who lack it).

    Args:
        scenario: Endpoints, features, model and training plan.
        cohort: All patients.
        seed: Cuts the folds and chooses the hospitals that lack a modality.
    """
    fold_of = within_hospital(cohort, scenario.folds.count, seed)
    frames = list(_whole(scenario, cohort, fold_of))
    for feature in scenario.features:
        single = scenario.model_copy(update={"features": [feature]})
        frames += _together(cohort, list(_pooled_jobs(single, cohort, fold_of, f"{feature}_only")))
        if feature != "clinical":
            met = Circumstances(lacking={feature: 0.5})
            lacking = as_recorded(cohort, met, seed)
            jobs = _pooled_jobs(scenario, lacking, fold_of, f"half_lack_{feature}")
            frames += _together(lacking, list(jobs))
    return pd.concat(frames, ignore_index=True).assign(seed=seed)


def _whole(scenario: Scenario, cohort: Cohort, fold_of: IntArray) -> Iterator[pd.DataFrame]:
    jobs = list(_pooled_jobs(scenario, cohort, fold_of, "pooled"))
    jobs += _separate_jobs(scenario, cohort, fold_of)
    yield from _together(cohort, jobs)
    yield from _federated(scenario, cohort, fold_of)
    for fold, train, test in _folds(scenario, fold_of):
        yield _floor(cohort, fold, train, test)
        groups = cohort.take(train).by_hospital()
        job = _job(scenario, cohort, "fedavg", fold, train, test, sites=sorted(groups))
        sites = {site: group.dataset(job.study) for site, group in groups.items()}
        yield _predicted(job, train_federated_epochs(job.study, sites), cohort)


def _federated(scenario: Scenario, cohort: Cohort, fold_of: IntArray) -> Iterator[pd.DataFrame]:
    """Yield predictions of the federated model, also for patients who lack a feature set."""
    sites = list(cohort.hospitals)
    jobs = [
        _job(scenario, cohort, "federated", fold, train, test, sites=sites)
        for fold, train, test in _folds(scenario, fold_of)
    ]
    rows = [{s: j.train[cohort.hospital[j.train] == s] for s in sites} for j in jobs]
    trials = [SiteTrial(job.study, own) for job, own in zip(jobs, rows, strict=True)]
    trained = train_by_site(cohort.dataset(jobs[0].study), trials)
    for job, arrays in zip(jobs, trained, strict=True):
        yield _predicted(job, arrays, cohort)
        for feature in scenario.features:
            absent = _without(cohort, feature)
            yield _predicted(job, arrays, absent).assign(arm=f"{feature}_missing")


def _folds(scenario: Scenario, fold_of: IntArray) -> Iterator[tuple[int, IntArray, IntArray]]:
    for fold in range(scenario.folds.count):
        yield fold, np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)


def _pooled_jobs(scenario: Scenario, cohort: Cohort, fold_of: IntArray, arm: str) -> Iterator[Job]:
    for fold, train, test in _folds(scenario, fold_of):
        yield _job(scenario, cohort, arm, fold, train, test, sites=["pooled"])


def _separate_jobs(scenario: Scenario, cohort: Cohort, fold_of: IntArray) -> list[Job]:
    """Return a model of every hospital alone, and one of all others, for its test patients."""
    jobs = []
    for fold in range(scenario.folds.count):
        for site in cohort.hospitals:
            here = cohort.hospital == site
            test = np.flatnonzero((fold_of == fold) & here)
            own = np.flatnonzero((fold_of != fold) & here)
            others = np.flatnonzero((fold_of != fold) & ~here)
            if len(test):
                for arm, train in (("local_only", own), ("leave_one_out", others)):
                    jobs.append(_job(scenario, cohort, arm, fold, train, test, sites=["one"]))
    return jobs


def _job(
    scenario: Scenario,
    cohort: Cohort,
    arm: str,
    fold: int,
    train: IntArray,
    test: IntArray,
    *,
    sites: Sequence[str],
) -> Job:
    plan = next((a.training for a in scenario.arms if a.name == arm), None)
    made = Arm(name=arm, training=plan)
    study = arm_study(scenario, made, cohort, sites, n_train=len(train), seed=0)
    return Job(arm, fold, study, train, test)


def _together(cohort: Cohort, jobs: Sequence[Job]) -> list[pd.DataFrame]:
    dataset = cohort.dataset(jobs[0].study)
    trained = train_together(dataset, [Trial(job.study, job.train) for job in jobs])
    return [_predicted(job, arrays, cohort) for job, arrays in zip(jobs, trained, strict=True)]


def _predicted(job: Job, arrays: Arrays, cohort: Cohort) -> pd.DataFrame:
    test = cohort.take(job.test)
    predicted = predict_cohort(job.study, arrays, test)
    tasks = job.study.endpoints
    return test.outcomes.assign(
        arm=job.arm,
        fold=job.fold,
        risk=predicted.risk if tasks.survival else np.nan,
        response_prob=predicted.response_prob if tasks.response else np.nan,
    )


def _floor(cohort: Cohort, fold: int, train: IntArray, test: IntArray) -> pd.DataFrame:
    tested = cohort.take(test)
    floor = fit_floor(cohort.take(train), tested)
    return tested.outcomes.assign(
        arm="clinical_floor", fold=fold, risk=floor.risk, response_prob=floor.response_prob
    )


def _without(cohort: Cohort, feature: str) -> Cohort:
    return replace(cohort, features={**cohort.features, feature: [None] * len(cohort)})
