"""Compare evaluation from summed tables with the pooled patient rows, on nine real cohorts.

Hospitals send the arrays of `common.metrics`; the same predictions are then pooled and judged by
scikit-survival, lifelines and scikit-learn. The printed error bound must cover every difference.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.metrics.summaries.additive_sums import brier_terms
from common.metrics.summaries.refine import refined
from common.metrics.summaries.summary import EvaluationSummary, summarise
from common.metrics.summaries.tabulate import tabulate
from common.metrics.survival.risk_sets import risk_sets
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.predictions import Predictions
from common.metrics.tables.score_scale import risk_score
from common.metrics.tables.tables import SiteTables, merge
from common.study.study import Study
from simulations.benchmarks.parts.check import Check, Size, progress
from simulations.benchmarks.parts.command import main
from simulations.benchmarks.parts.evaluation_cohorts import COHORTS, ScoredCohort, load_scored

DURATION = "about 1 minute"
NEEDS = ("multicentre_survival", "tcga", "nsclc_ct_radiomics")


@dataclass(frozen=True)
class ErrorSize(Size):
    """Names of the cohorts."""

    cohorts: tuple[str, ...] = COHORTS


FULL = ErrorSize(seeds=(11,))
MINIATURE = ErrorSize(seeds=(11,), partial=True, cohorts=("ncctg_lung", "nsclc_ct_radiomics"))


def checks(data: Path, size: ErrorSize) -> Iterator[Check]:
    """Yield the checks of every cohort."""
    for name in size.cohorts:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lifelines")  # columns that hardly vary
            cohort = load_scored(name, data)
        progress(
            f"{name}: {len(cohort.patients)} patients, {len(cohort.patients.hospitals)} hospitals"
        )
        federated = federate(cohort)
        if cohort.hazard_logits is not None:
            yield from survival_checks(cohort, federated)
        if cohort.response_logit is not None:
            yield from response_checks(cohort, federated)


class Federated:
    """Both phases of an evaluation over the hospitals of a cohort."""

    def __init__(self, cohort: ScoredCohort, grid: EvaluationGrid, rows: Predictions) -> None:
        hospital = cohort.patients.hospital
        parts = {
            site: rows.select(np.flatnonzero(hospital == site))
            for site in cohort.patients.hospitals
        }
        margins = merge([tabulate(part, grid, "margins") for part in parts.values()])
        self.rows = rows
        self.grid = refined(grid, margins)
        self.per_site = {site: tabulate(part, self.grid) for site, part in parts.items()}
        self.summary: EvaluationSummary = summarise(self.per_site, self.grid, n_replicates=0)

    @property
    def total(self) -> SiteTables:
        """Sum over the hospitals."""
        return merge(list(self.per_site.values()))

    def value(self, name: str) -> float:
        """Return a metric; NaN where it is not estimable."""
        found = self.summary.metrics[name].value
        return float("nan") if found is None else found

    def bound(self, name: str) -> float:
        """Return the printed error bound of a metric."""
        found = self.summary.metrics[name].error_bound
        return float("nan") if found is None else found


def study_of(cohort: ScoredCohort) -> Study:
    """Return a study with the cohort's endpoints and exact tables."""
    endpoints: dict[str, object] = {}
    if cohort.hazard_logits is not None:
        endpoints["survival"] = {
            "edges_months": cohort.edges,
            "horizons_months": cohort.horizons,
        }
    if cohort.response_logit is not None:
        endpoints["response"] = {"positive": "responder"}
    return Study.from_mapping(
        {
            "study_id": cohort.name,
            "endpoints": endpoints,
            "features": {"score": {"modality": "clinical", "dim": 1}},
            "privacy": {"mode": "none", "evaluation": {"release": "internal"}},
            "sites": [{"site_id": "first"}, {"site_id": "second"}],
        },
        where=cohort.name,
    )


def federate(cohort: ScoredCohort) -> Federated:
    """Return the federated evaluation of a cohort."""
    grid = EvaluationGrid.for_study(study_of(cohort))
    rows = Predictions.from_logits(
        grid,
        response_logit=cohort.response_logit,
        hazard_logits=cohort.hazard_logits,
        response=cohort.patients.response,
        time_months=cohort.patients.time_months,
        event=cohort.patients.event,
    )
    return Federated(cohort, grid, rows)


def survival_checks(cohort: ScoredCohort, federated: Federated) -> Iterator[Check]:
    """Yield the checks of one survival cohort."""
    yield from concordance_checks(cohort, federated)
    yield from curve_checks(cohort, federated)
    yield from time_dependent_checks(cohort, federated)
    rows, grid = federated.rows, federated.grid
    pooled = brier_terms(rows, grid).mean(0)
    sums = federated.total.sums("brier")
    error = np.nan if sums is None else float(np.abs(sums[0] / len(rows) - pooled).max())
    what = f"{cohort.name}: Brier and IBS against pooled, same censoring curve"
    yield Check(what, error, 1e-9, "<=")
    loss = abs(federated.value("survival_nll") - float(rows.survival_nll.mean()))
    yield Check(f"{cohort.name}: log-loss against pooled", loss, 1e-9, "<=")


def concordance_checks(cohort: ScoredCohort, federated: Federated) -> Iterator[Check]:
    """Yield C against scikit-survival, pooled and within sites."""
    from sksurv.metrics import concordance_index_censored

    rows = federated.rows
    pooled = concordance_index_censored(rows.event > 0, rows.time_months, rows.risk)[0]
    error = abs(federated.value("c_index") - pooled)
    note = f"pooled {pooled:.4f}, printed bound {federated.bound('c_index'):.4f}"
    yield Check(f"{cohort.name}: |dC| at 64 x 64 bins", error, 0.002, "<=", note)
    uncovered = error - federated.bound("c_index")
    yield Check(f"{cohort.name}: |dC| minus its printed bound", uncovered, 0, "<=")
    agreeing = comparable = 0.0
    for site in cohort.patients.hospitals:
        part = rows.select(np.flatnonzero(cohort.patients.hospital == site))
        try:
            found = concordance_index_censored(part.event > 0, part.time_months, part.risk)
        except ValueError:  # no event or no comparable pair at this hospital
            continue
        agreeing += found[1] + found[3] / 2
        comparable += found[1] + found[2] + found[3]
    error = abs(federated.value("c_index_within_sites") - agreeing / comparable)
    yield Check(f"{cohort.name}: C within sites against pooled rows", error, 1e-9, "<=")


def curve_checks(cohort: ScoredCohort, federated: Federated) -> Iterator[Check]:
    """Yield Kaplan-Meier at every edge and the log-rank test against lifelines."""
    from lifelines import KaplanMeierFitter
    from lifelines.statistics import logrank_test

    rows, grid = federated.rows, federated.grid
    sets = risk_sets(federated.total, grid)
    if sets is None or grid.risk_threshold is None:
        return
    high = risk_score(rows.risk, grid.n_intervals) >= grid.risk_threshold
    worst, uncovered = 0.0, -np.inf
    groups = [(high | ~high, sets.everybody), (high, sets.high), (~high, sets.low)]
    for member, counts in groups:
        curve = sets.curve("", counts)
        fitted = KaplanMeierFitter().fit(rows.time_months[member], rows.event[member])
        reached = curve.time_months <= rows.time_months[member].max()
        truth = fitted.predict(curve.time_months[reached]).to_numpy()
        error = float(np.abs(curve.survival[reached] - truth).max())
        worst, uncovered = max(worst, error), max(uncovered, error - curve.error_bound)
    what = f"{cohort.name}: Kaplan-Meier, all and both risk groups"
    note = f"at {len(grid.risk_edges) - 2} edges"
    yield Check(f"{what}, largest error at any edge", worst, 0.005, "<=", note)
    yield Check(f"{what}, error minus its printed bound", uncovered, 1e-12, "<=")
    test = logrank_test(
        rows.time_months[high], rows.time_months[~high], rows.event[high], rows.event[~high]
    )
    relative = abs(federated.value("log_rank_chi2") / test.test_statistic - 1)
    what = f"{cohort.name}: log-rank chi-square, relative error"
    yield Check(what, relative, 0.01, "<=", f"pooled {test.test_statistic:.2f}")


def time_dependent_checks(cohort: ScoredCohort, federated: Federated) -> Iterator[Check]:
    """Yield Uno's C, AUC at horizons and IBS against scikit-survival's own censoring curve."""
    from sksurv.metrics import (
        concordance_index_ipcw,
        cumulative_dynamic_auc,
        integrated_brier_score,
    )
    from sksurv.util import Surv

    rows, grid = federated.rows, federated.grid
    outcome = Surv.from_arrays(rows.event > 0, rows.time_months)
    tau = float(grid.horizons[-1])
    # Pooled figures of patients administratively censored just after the last horizon: their
    # censoring curve cannot reach zero there, as scikit-survival requires.
    uno = concordance_index_ipcw(outcome, outcome, rows.risk, tau=tau)[0]
    error = abs(federated.value("uno_c") - uno)
    yield Check(f"{cohort.name}: Uno's C against scikit-survival", error, 0.005, "<=")
    auc, _ = cumulative_dynamic_auc(outcome, outcome, rows.risk, grid.horizons)
    names = [f"auc_{months:g}m" for months in grid.horizons]
    error = max(abs(federated.value(n) - a) for n, a in zip(names, auc, strict=True))
    yield Check(f"{cohort.name}: AUC at horizons against scikit-survival", error, 0.005, "<=")
    ibs = integrated_brier_score(outcome, outcome, rows.survival, grid.brier_times)
    error = abs(federated.value("ibs") - ibs)
    note = "ours cuts weights off at 20 and interpolates the censoring curve"
    yield Check(f"{cohort.name}: IBS against scikit-survival", error, 0.005, "<=", note)


def response_checks(cohort: ScoredCohort, federated: Federated) -> Iterator[Check]:
    """Yield the checks of one response cohort against scikit-learn."""
    from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

    rows = federated.rows
    label, prob = rows.response, rows.response_prob
    pooled = float(roc_auc_score(label, prob))
    error, bound = abs(federated.value("response_auc") - pooled), federated.bound("response_auc")
    note = f"pooled {pooled:.4f}, printed bound {bound:.4f}"
    yield Check(f"{cohort.name}: |dAUC| at 64 bins", error, 0.002, "<=", note)
    yield Check(f"{cohort.name}: |dAUC| minus its printed bound", error - bound, 0, "<=")
    error = abs(federated.value("response_auprc") - float(average_precision_score(label, prob)))
    yield Check(f"{cohort.name}: average precision", error, 0.01, "<=")
    error = max(
        abs(federated.value("response_brier") - float(brier_score_loss(label, prob))),
        abs(federated.value("response_nll") - float(log_loss(label, prob))),
    )
    yield Check(f"{cohort.name}: Brier and log-loss against pooled", error, 1e-9, "<=")


if __name__ == "__main__":
    main(__file__)
