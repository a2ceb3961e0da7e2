"""Train the arms of a multimodal comparison, many models at once.

What is trained is what the product trains; `simulations.trials.site_trials` computes the gradients
of many folds, seeds and arms in one call. Sums of gradients over hospitals and over all patients in
one place differ by rounding alone; `federated` is trained hospital by hospital all the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from client.data.dataset import PatientDataset
from client.training.train import train_epochs
from common.models.base.build import build_model
from common.models.base.parameters import block_of, load_arrays, to_arrays
from common.study.study import Study
from common.wire import Arrays
from server.aggregate.contribution import Contribution
from server.aggregate.method import aggregate
from server.session.checkpoint import Checkpoint, RoundRecord, advance, final_model
from simulations.cohorts.cohort import Cohort
from simulations.cohorts.folds import within_hospital
from simulations.engines.circumstances import Circumstances, as_recorded
from simulations.scenario.scenario import Arm, Scenario
from simulations.scenario.scenario_study import arm_study
from simulations.trials.clinical_floor import fit_floor
from simulations.trials.exact_evaluation import predict_cohort
from simulations.trials.site_trials import SiteTrial, train_by_site

IntArray = npt.NDArray[np.intp]
FLOOR = "clinical_floor"


@dataclass(frozen=True)
class _Job:
    """One model to train, and whom it is tested on.

    Attributes:
        arm: Name of the arm.
        fold: Fold that is held out.
        study: What is trained.
        sites: Site -> rows of its training patients.
        test: Rows of the patients it predicts.
    """

    arm: str
    fold: int
    study: Study
    sites: dict[str, IntArray]
    test: IntArray


def arms_of_less(scenario: Scenario) -> list[str]:
    """Return the arms of `score_seed` that read one feature set alone, and the clinical floor."""
    return [*map(_single, scenario.features), FLOOR]


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
        frames += _together(cohort, _pooled(single, cohort, fold_of, _single(feature)))
        if feature != "clinical":
            circumstances = Circumstances(lacking={feature: 0.5})
            lacking = as_recorded(cohort, circumstances, seed)
            frames += _together(
                lacking, _pooled(scenario, lacking, fold_of, f"half_lack_{feature}")
            )
    return pd.concat(frames, ignore_index=True).assign(seed=seed)


def _single(feature: str) -> str:
    return f"{feature}_only"


def _whole(scenario: Scenario, cohort: Cohort, fold_of: IntArray) -> Iterator[pd.DataFrame]:
    """Yield predictions of the arms that read every feature set, and of the floor."""
    jobs = _pooled(scenario, cohort, fold_of, "pooled") + _separate(scenario, cohort, fold_of)
    yield from _together(cohort, jobs)
    federated = _by_site(scenario, cohort, fold_of, "federated")
    for job, arrays in zip(federated, _trained(cohort, federated), strict=True):
        yield _predicted(job, arrays, cohort)
        for feature in scenario.features:
            lacking = dict(cohort.features)
            lacking[feature] = [None] * len(cohort)
            absent = _predicted(job, arrays, replace(cohort, features=lacking))
            yield absent.assign(arm=f"{feature}_missing")
    for job in _by_site(scenario, cohort, fold_of, "fedavg"):
        train = {site: cohort.take(rows) for site, rows in job.sites.items()}
        patients = {site: group.dataset(job.study) for site, group in train.items()}
        yield _predicted(job, train_federated_epochs(job.study, patients), cohort)
        test = cohort.take(job.test)
        floor = fit_floor(cohort.take(np.flatnonzero(fold_of != job.fold)), test)
        scores = {"risk": floor.risk, "response_prob": floor.response_prob}
        yield test.outcomes.assign(arm=FLOOR, fold=job.fold, **scores)


def _pooled(scenario: Scenario, cohort: Cohort, fold_of: IntArray, arm: str) -> list[_Job]:
    """Return a model of all patients in one place for every fold."""
    return [
        _job(scenario, cohort, arm, fold, {"pooled": fold_of != fold}, fold_of == fold)
        for fold in range(scenario.folds.count)
    ]


def _by_site(scenario: Scenario, cohort: Cohort, fold_of: IntArray, arm: str) -> list[_Job]:
    """Return a model of all hospitals together for every fold."""
    return [
        _job(
            scenario,
            cohort,
            arm,
            fold,
            {site: (fold_of != fold) & (cohort.hospital == site) for site in cohort.hospitals},
            fold_of == fold,
        )
        for fold in range(scenario.folds.count)
    ]


def _separate(scenario: Scenario, cohort: Cohort, fold_of: IntArray) -> list[_Job]:
    """Return a model of every hospital alone, and one of all others, for its test patients."""
    jobs = []
    for fold in range(scenario.folds.count):
        train = fold_of != fold
        for site in cohort.hospitals:
            here = cohort.hospital == site
            if (~train & here).any():
                for arm, rows in (("local_only", train & here), ("leave_one_out", train & ~here)):
                    jobs.append(_job(scenario, cohort, arm, fold, {"one": rows}, ~train & here))
    return jobs


def _job(
    scenario: Scenario,
    cohort: Cohort,
    arm: str,
    fold: int,
    train: dict[str, npt.NDArray[np.bool_]],
    test: npt.NDArray[np.bool_],
) -> _Job:
    sites = {site: np.flatnonzero(rows) for site, rows in train.items() if rows.any()}
    plan = next((a.training for a in scenario.arms if a.name == arm), None)
    n_train = sum(len(rows) for rows in sites.values())
    study = arm_study(
        scenario, Arm(name=arm, training=plan), cohort, list(sites), n_train=n_train, seed=0
    )
    return _Job(arm, fold, study, sites, np.flatnonzero(test))


def _trained(cohort: Cohort, jobs: Sequence[_Job]) -> list[Arrays]:
    trials = [SiteTrial(job.study, job.sites) for job in jobs]
    return train_by_site(cohort.dataset(jobs[0].study), trials)


def _together(cohort: Cohort, jobs: Sequence[_Job]) -> list[pd.DataFrame]:
    models = _trained(cohort, jobs)
    return [_predicted(job, arrays, cohort) for job, arrays in zip(jobs, models, strict=True)]


def _predicted(job: _Job, arrays: Arrays, cohort: Cohort) -> pd.DataFrame:
    test = cohort.take(job.test)
    predictions = predict_cohort(job.study, arrays, test)
    tasks = job.study.endpoints
    return test.outcomes.assign(
        arm=job.arm,
        fold=job.fold,
        risk=predictions.risk if tasks.survival else np.nan,
        response_prob=predictions.response_prob if tasks.response else np.nan,
    )


def train_federated_epochs(study: Study, sites: Mapping[str, PatientDataset]) -> Arrays:
    """Return the final model that these hospitals would train by local epochs.

    Local training, aggregation and server optimiser are the product's own; messages, checks,
    ledgers and checkpoints are left out.

    Args:
        study: A study of mode none with `training.local.kind: epochs`, without control variates
            and without anything that stays at a site.
        sites: Site -> its training patients.
    """
    model = build_model(study)
    checkpoint = Checkpoint(round=0, parameters=to_arrays(model))
    for number in range(1, study.training.rounds + 1):
        updates = []
        for site_id, patients in sites.items():
            load_arrays(model, checkpoint.parameters)
            result = train_epochs(model, patients, study, round=number, device=torch.device("cpu"))
            here = {block for block, weight in result.weights.items() if weight > 0}
            delta = {n: d for n, d in result.delta.items() if block_of(n) in here}
            updates.append(Contribution(site_id, delta, result.weights))
        aggregation = aggregate(study, checkpoint.parameters, updates, checkpoint.memory)
        record = RoundRecord(round=number, sites=sorted(sites), update_norm=0.0)
        checkpoint = advance(study, checkpoint, aggregation.direction, record, aggregation.memory)
    return final_model(checkpoint)
