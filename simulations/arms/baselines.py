"""Train the baselines of a federated run: pooled, each hospital alone, floor, oracle.

All need patients of several hospitals in one place, or the truth behind synthetic data; they
exist in simulations only and are trained without privacy.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.special import logit

from common.commands.cli_output import Output
from common.metrics.catalogue import headlines
from common.metrics.tables.estimate import Estimate, not_estimable
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.predictions import Predictions
from common.privacy.plan import EvaluationRelease, PrivacyPlan
from common.study.study import Quorum, RosterEntry, Study
from common.wire import Arrays
from server.report.content import BASELINES, Baseline
from simulations.cohorts.cohort import Cohort
from simulations.trials.clinical_floor import FloatArray, fit_floor
from simulations.trials.exact_evaluation import (
    exact_summary,
    paired_differences,
    paired_within_sites,
    predict_cohort,
)
from simulations.trials.memory_training import Trained, train_in_memory

_TINY = 1e-9


def train_baselines(
    study: Study,
    federated: Arrays,
    train: Cohort,
    held_out: Cohort,
    work: Path,
    *,
    output: Output,
) -> list[Baseline]:
    """Return pooled, local-only and clinical baselines on the same held-out patients.

    Each carries the paired difference of the federated model from it, on exact predictions.

    Args:
        study: The federated study; model, rounds and optimiser are kept, privacy is dropped.
        federated: The federated model.
        train: Training patients of all hospitals.
        held_out: Held-out patients of all hospitals.
        work: Folder for the state of the runs; a killed run continues from there.
        output: Where progress is shown.
    """
    test_cohorts = held_out.by_hospital()
    ours = {site: predict_cohort(study, federated, group) for site, group in test_cohorts.items()}
    output.say("Baseline: one model over all patients in one place, without privacy")
    model = _train(study, {"pooled": train}, work / "pooled", output)
    pooled = {site: model.predict(group) for site, group in test_cohorts.items()}
    output.say("Baseline: every hospital alone, without privacy")
    alone = {
        site: _train(study, {site: own}, work / f"alone_{site}", output).predict(group)
        for site, own in train.by_hospital().items()
        if (group := test_cohorts.get(site)) is not None
    }
    return [
        _baseline("pooled", study, pooled, ours),
        _mean_over_sites("local_only", study, alone, ours),
        _baseline("clinical_floor", study, _floor(study, train, test_cohorts, ours), ours),
    ]


def oracle_baseline(metrics: Mapping[str, float | None], reason: str) -> Baseline:
    """Return the oracle's figures, or why there are none."""
    title, explanation = BASELINES["oracle"]
    results = {
        m.name: not_estimable(reason) if metrics.get(m.name) is None else Estimate(metrics[m.name])
        for m in headlines()
    }
    return Baseline("oracle", title, explanation, results)


def without_privacy(study: Study, sites: list[str], n_train: int) -> Study:
    """Return the study over other sites, without privacy, all patients used for training."""
    plan = PrivacyPlan(mode="none", evaluation=EvaluationRelease(release="internal"))
    training = study.training.model_copy(update={"test_fraction": 0.0, "nominal_patients": n_train})
    return study.model_copy(
        update={
            "sites": [RosterEntry(site_id=site) for site in sites],
            "privacy": plan,
            "training": training,
            "quorum": Quorum(min_sites=1),
        }
    )


def _train(study: Study, groups: Mapping[str, Cohort], work: Path, output: Output) -> Trained:
    n_train = sum(len(group) for group in groups.values())
    alone = without_privacy(study, sorted(groups), n_train)
    return train_in_memory(alone, groups, work, output=output)


def _baseline(
    name: str, study: Study, theirs: Mapping[str, Predictions], ours: Mapping[str, Predictions]
) -> Baseline:
    title, explanation = BASELINES[name]
    summary = exact_summary(study, theirs)
    sites = {site: _headline(part.metrics) for site, part in summary.per_site.items()}
    differences = paired_differences(study, theirs, ours)
    return Baseline(name, title, explanation, _headline(summary.metrics), sites, differences)


def _headline(metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
    return {m.name: metrics[m.name] for m in headlines() if m.name in metrics}


def _mean_over_sites(
    name: str, study: Study, by_site: Mapping[str, Predictions], ours: Mapping[str, Predictions]
) -> Baseline:
    """Return the patient-weighted mean of each hospital's own figure.

    Scores of different models share no scale, so they are never ranked against each other, and
    the paired difference is taken inside each hospital.
    """
    title, explanation = BASELINES[name]
    per_site = {
        site: _headline(exact_summary(study, {site: predictions}).metrics)
        for site, predictions in by_site.items()
    }
    overall: dict[str, Estimate] = {}
    for metric in (headline.name for headline in headlines()):
        usable = [
            (estimate.value, len(by_site[site]))
            for site, part in per_site.items()
            if (estimate := part.get(metric)) is not None and estimate.value is not None
        ]
        if usable:
            values, sizes = zip(*usable, strict=True)
            caveat = f"patient-weighted mean over {len(usable)} hospitals, each with its own model"
            overall[metric] = Estimate(float(np.average(values, weights=sizes)), caveat)
        elif any(metric in part for part in per_site.values()):
            overall[metric] = not_estimable("no hospital alone can estimate it")
    differences = paired_within_sites(study, by_site, {site: ours[site] for site in by_site})
    return Baseline(name, title, explanation, overall, per_site, differences)


def _floor(
    study: Study, train: Cohort, test_cohorts: Mapping[str, Cohort], ours: Mapping[str, Predictions]
) -> dict[str, Predictions]:
    grid = EvaluationGrid.for_study(study)
    ends = _interval_ends(grid)
    predictions = {}
    for site, group in test_cohorts.items():
        floor = fit_floor(train, group, horizons=ends)
        predictions[site] = Predictions.from_logits(
            grid,
            response_logit=_logit(floor.response_prob) if grid.has_response else None,
            hazard_logits=_hazard_logits(floor.survival) if grid.has_survival else None,
            response=ours[site].response,
            time_months=ours[site].time_months,
            event=ours[site].event,
        )
    return predictions


def _interval_ends(grid: EvaluationGrid) -> tuple[float, ...]:
    """Return the right ends of the study's intervals; the open one as wide as its neighbour."""
    edges = grid.hazard_edges
    if not len(edges):
        return ()
    return (*(float(edge) for edge in edges[1:]), float(2 * edges[-1] - edges[-2]))


def _hazard_logits(survival: FloatArray) -> FloatArray:
    """Return the logits of dying in each interval from survival at its right end (n, K)."""
    before = np.concatenate([np.ones((len(survival), 1)), survival[:, :-1]], axis=1)
    return _logit(1 - survival / np.clip(before, _TINY, None))


def _logit(probability: FloatArray) -> FloatArray:
    return np.asarray(logit(np.clip(probability, _TINY, 1 - _TINY)))
