"""Estimate each survival metric from the tables of one site, of all sites, or of all but one.

Brier scores and log-loss are means over patients of a bounded term whose sum and sum of squares
the sites send, so they equal the pooled figures to fixed-point precision. Survival terms use the
broadcast censoring curve (phase two).
"""

from functools import cached_property
from typing import Literal

import numpy as np

from common.metrics.survival.calibration import (
    observed_to_expected,
    recalibration,
    weighted_outcomes,
)
from common.metrics.survival.concordance import (
    c_index_estimate,
    c_index_sd,
    refuse_few_events,
)
from common.metrics.survival.kaplan_meier import Z95, restricted_mean
from common.metrics.survival.log_rank import LogRank
from common.metrics.survival.rank_counts import RankCounts
from common.metrics.survival.risk_sets import RiskSets, risk_sets
from common.metrics.survival.time_auc import last_followed_edge
from common.metrics.tables.estimate import Estimate, not_estimable
from common.metrics.tables.score_scale import FloatArray
from common.metrics.tables.table_schema import FIXED_POINT
from common.metrics.tables.tables import TaskView

BEYOND = "horizon beyond follow-up"


class SurvivalView(TaskView):
    """Survival tables; `table` is (2, T, S) counts [censored | died, time, score]."""

    task = "survival"
    undefined = "no death before the horizon"

    @cached_property
    def ranks(self) -> RankCounts:
        """The table as rank statistics read it."""
        last_edge = last_followed_edge(self.table, self.grid)
        return RankCounts(self.table, self.grid, last_edge, self.cell_variance)

    @cached_property
    def sets(self) -> RiskSets:
        """Risk sets of both groups."""
        return risk_sets(self.tables, self.grid)

    @cached_property
    def n(self) -> float:
        """Patients with a known outcome."""
        return float(self.table.sum())

    def refusal(self, months: float | None = None) -> str | None:
        """Return why nothing can be said up to a horizon (the last one by default), or None."""
        few = None if self.cell_variance else refuse_few_events(self.table)
        return few or (BEYOND if self.beyond(months) else None)

    def beyond(self, months: float | None = None) -> bool:
        """Return whether nobody outlives a horizon (by default: any of them)."""
        edge = 1 if months is None else self.grid.edge_of(months)
        return edge > self.ranks.last_edge

    def moment(self, months: float) -> int:
        """Return the index of a horizon among the grid's `brier_times`."""
        return int(np.argmin(np.abs(self.grid.brier_times - months)))


def c_index(view: SurvivalView) -> Estimate:
    """Return Harrell's C with the interval of the infinitesimal jackknife."""
    estimate = c_index_estimate(view.table, view.cell_variance)
    if estimate.value is None:
        return estimate
    half = Z95 * c_index_sd(view.table)
    return estimate.with_interval(max(estimate.value - half, 0.0), min(estimate.value + half, 1.0))


def stratified_log_rank(view: SurvivalView) -> LogRank:
    """Return the log-rank test stratified by site, exact."""
    sums = view.sums("site_log_rank")
    resolution = len(sums) / FIXED_POINT
    return LogRank(float(sums[0]), float(sums[1]) if sums[1] > resolution else 0.0)


def restricted_mean_of(view: SurvivalView, group: Literal["everybody", "low", "high"]) -> Estimate:
    """Return the restricted mean survival of a group up to the last horizon, months."""
    counts = getattr(view.sets, group)
    if counts.sum() < 1:
        return not_estimable("no patient in the group")
    return restricted_mean(view.sets.curve(group, counts), float(view.grid.horizons[-1]))


def calibration_line(view: SurvivalView, months: float) -> tuple[Estimate, Estimate]:
    """Return slope and intercept of the outcome at a horizon on the predicted log-odds."""
    refusal = view.refusal(months)
    if refusal:
        return not_estimable(refusal), not_estimable(refusal)
    counts = view.table.sum((0, 1))
    log_odds = view.sums("survival_bin_sums")[1, view.moment(months)]
    logit = np.where(counts > 0, -log_odds / np.where(counts > 0, counts, 1), 0.0)
    return recalibration(logit, *weighted_outcomes(view.table, view.grid.edge_of(months)))


def observed_over_expected(view: SurvivalView, months: float) -> Estimate:
    """Return observed over expected deaths at a horizon."""
    refusal = view.refusal(months)
    if refusal:
        return not_estimable(refusal)
    survival = view.sums("survival_bin_sums")[0, view.moment(months)]
    return observed_to_expected(view.table, survival, view.grid.edge_of(months))


def brier(view: SurvivalView, months: float) -> Estimate:
    """Return the Brier score at a horizon."""
    if view.beyond(months):
        return not_estimable(BEYOND)
    return mean_estimate(view.sums("brier")[:, view.moment(months)], view.n)


def brier_explained(view: SurvivalView, months: float) -> Estimate:
    """Return the share of the Kaplan-Meier curve's Brier score that the model explains."""
    curve = view.sets.curve("all", view.sets.everybody)
    at = int(np.argmin(np.abs(curve.time_months - months)))
    return explained(brier(view, months), float(curve.survival[at]))


def integrated_brier(view: SurvivalView) -> Estimate:
    """Return the Brier score integrated over time up to the last horizon."""
    if view.beyond(float(view.grid.horizons[-1])):
        return not_estimable(BEYOND)
    return mean_estimate(view.sums("brier")[:, -1], view.n)


def mean_estimate(moments: FloatArray, n: float) -> Estimate:
    """Return the mean of n terms with its 95 % interval, from (2,) their sum and sum of squares."""
    if n <= 0:
        return not_estimable("no patient with a known outcome")
    mean, squares = float(moments[0]) / n, float(moments[1]) / n
    if n < 2:
        return Estimate(mean)
    sd = float(np.sqrt(max(squares - mean**2, 0.0) / (n - 1)))
    return Estimate(mean, ci_low=mean - Z95 * sd, ci_high=mean + Z95 * sd)


def explained(brier: Estimate, survival: float) -> Estimate:
    """Return 1 - Brier / (S (1 - S)), at most 1; 0 = no better than the Kaplan-Meier curve."""
    reference = survival * (1 - survival)
    if brier.value is None:
        return brier
    if reference <= 0:
        return not_estimable("nobody, or everybody, has died by the horizon")
    limits = [None if x is None else 1 - x / reference for x in (brier.ci_high, brier.ci_low)]
    return Estimate(1 - brier.value / reference, ci_low=limits[0], ci_high=limits[1])
