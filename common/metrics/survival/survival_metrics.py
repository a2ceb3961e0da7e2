"""All survival metrics of some tables: one site, all sites, all but one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from common.metrics.survival.brier import brier_at, explained, mean_estimate
from common.metrics.survival.calibration import (
    d_calibration,
    observed_to_expected,
    recalibration,
    weighted_outcomes,
)
from common.metrics.survival.concordance import (
    c_index_estimate,
    c_index_sd,
    interval_pairs,
    refuse_few_events,
)
from common.metrics.survival.kaplan_meier import Z95, restricted_mean
from common.metrics.survival.log_rank import LogRank
from common.metrics.survival.risk_sets import RiskSets, risk_sets, stratified_log_rank
from common.metrics.survival.time_auc import (
    auc_at_edges,
    integrated_auc,
    last_followed_edge,
    uno_c,
)
from common.metrics.tables.bootstrap import Statistic
from common.metrics.tables.estimate import Estimate, not_estimable
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.score_scale import FloatArray
from common.metrics.tables.tables import SiteTables

AUC_EDGE = "auc_edge_"
BEYOND = "horizon beyond follow-up"


def rank_statistics(grid: EvaluationGrid, last_edge: int, cell_variance: float) -> Statistic:
    """Return the function that gives all rank metrics of tables (b, 2, T, S), for resampling.

    Beside the named metrics, `auc_edge_<k>` is the AUC at time edge k, for the curve over time.
    """

    def statistic(tables: FloatArray) -> dict[str, FloatArray]:
        pairs = interval_pairs(tables, cell_variance)
        found = {"c_index": pairs.weighted(np.ones(tables.shape[-2])).c_index()}
        if not last_edge:
            return found
        auc = auc_at_edges(tables, np.arange(1, last_edge + 1))
        found |= {f"{AUC_EDGE}{edge}": auc[..., edge - 1] for edge in range(1, last_edge + 1)}
        found["uno_c"] = uno_c(tables, last_edge, pairs)
        found["iauc"] = integrated_auc(tables, auc)
        for months in grid.horizons:
            edge = grid.edge_of(float(months))
            if edge <= last_edge:
                found[auc_name(float(months))] = auc[..., edge - 1]
        return found

    return statistic


def auc_name(months: float) -> str:
    """Return the name of the AUC at a horizon.

    >>> auc_name(12.0)
    'auc_12m'
    """
    return f"auc_{months:g}m"


def rank_metrics(
    table: FloatArray, grid: EvaluationGrid, cell_variance: float
) -> dict[str, Estimate]:
    """Return C, Uno's C, AUC at horizons and iAUC of one table (2, T, S)."""
    c_index = c_index_estimate(table, cell_variance)
    if c_index.value is not None:
        half = Z95 * c_index_sd(table)
        c_index = c_index.with_interval(
            max(c_index.value - half, 0.0), min(c_index.value + half, 1.0)
        )
    found = {"c_index": c_index}
    names = ["uno_c", "iauc", *(auc_name(float(months)) for months in grid.horizons)]
    reason = None if cell_variance else refuse_few_events(table)
    if reason is not None:
        return found | dict.fromkeys(names, not_estimable(reason))
    values = rank_statistics(grid, last_followed_edge(table, grid), cell_variance)(table)
    for name in names:
        found[name] = _finite(values.get(name))
    return found


def _finite(value: FloatArray | None) -> Estimate:
    if value is None:
        return not_estimable(BEYOND)
    if not np.isfinite(value):
        return not_estimable("no death before the horizon")
    return Estimate(float(np.clip(value, 0.0, 1.0)))


def group_metrics(tables: SiteTables, sets: RiskSets, grid: EvaluationGrid) -> dict[str, Estimate]:
    """Return log-rank of the risk groups and restricted mean survival at the last horizon."""
    found = log_rank_metrics(sets.log_rank(), "log_rank")
    stratified = stratified_log_rank(tables)
    if stratified is not None:
        found |= log_rank_metrics(stratified, "log_rank_stratified")
    horizon = float(grid.horizons[-1])
    groups = {"": sets.everybody, "_low_risk": sets.low, "_high_risk": sets.high}
    for suffix, group in groups.items():
        empty = group.sum() < 1
        found[f"rmst{suffix}"] = (
            not_estimable("no patient in the group")
            if empty
            else restricted_mean(sets.curve(suffix, group), horizon)
        )
    return found


def log_rank_metrics(test: LogRank, name: str) -> dict[str, Estimate]:
    """Return chi-square and p value of a test under its name."""
    return {f"{name}_chi2": test.chi_square, f"{name}_p": test.p_value}


def stratified_c_index(tables: SiteTables) -> Estimate:
    """Return C over pairs of the same site, exact: site effects cannot pose as discrimination."""
    pairs = tables.counts("survival_site_pairs")
    if pairs is None:
        return not_estimable("sites do not release pair counts with differential privacy")
    if pairs[1] == 0:
        return not_estimable("no comparable pair within a site")
    return Estimate(float(pairs[0] / pairs[1]))


def calibration_metrics(
    table: FloatArray, sums: FloatArray, grid: EvaluationGrid
) -> dict[str, Estimate]:
    """Return slope, intercept and observed/expected deaths at every horizon.

    Args:
        table: (2, T, S) exact counts.
        sums: (2, 8, S) sums of predicted S and of its log-odds at the grid's `brier_times`.
        grid: The grid.
    """
    found: dict[str, Estimate] = {}
    last, counts = last_followed_edge(table, grid), table.sum((0, 1))
    refused = refuse_few_events(table)
    for months in grid.horizons:
        names = [f"{n}_{months:g}m" for n in ("calibration_slope", "calibration_intercept", "oe")]
        edge = grid.edge_of(float(months))
        if refused or edge > last:
            found |= dict.fromkeys(names, not_estimable(refused or BEYOND))
            continue
        column = int(np.argmin(np.abs(grid.brier_times - months)))
        filled = counts > 0
        logit = np.where(filled, -sums[1, column] / np.where(filled, counts, 1), 0.0)
        died, alive = weighted_outcomes(table, edge)
        slope, intercept = recalibration(logit, died, alive)
        found |= dict(
            zip(names, (slope, intercept, observed_to_expected(table, sums[0, column], edge)),
                strict=True)
        )  # fmt: skip
    return found


def additive_metrics(tables: SiteTables, grid: EvaluationGrid) -> dict[str, Estimate]:
    """Return log-loss, Brier scores, IBS, explained Brier and D-calibration."""
    table, nll = tables.survival, tables.sums("survival_nll")
    if table is None or nll is None:
        return {}
    n = float(table.sum())
    found = {"survival_nll": mean_estimate(float(nll[0]), float(nll[1]), n)}
    tenths = tables.sums("d_calibration")
    if tenths is not None:
        found["d_calibration_p"] = d_calibration(tenths)
    return found | _brier_metrics(tables, grid, table)


def _brier_metrics(
    tables: SiteTables, grid: EvaluationGrid, table: FloatArray
) -> dict[str, Estimate]:
    sums, sets = tables.sums("brier"), risk_sets(tables, grid)
    names = [f"brier_{months:g}m" for months in grid.horizons]
    if sums is None or sets is None:
        reason = "no censoring curve was broadcast: the evaluation had one phase"
        return dict.fromkeys([*names, "ibs"], not_estimable(reason))
    n, last = float(table.sum()), last_followed_edge(table, grid)
    curve = sets.curve("all", sets.everybody)
    found: dict[str, Estimate] = {}
    for name, months in zip(names, grid.horizons, strict=True):
        column = int(np.argmin(np.abs(grid.brier_times - months)))
        beyond = grid.edge_of(float(months)) > last
        score = not_estimable(BEYOND) if beyond else brier_at(sums, column, n)
        at = int(np.argmin(np.abs(curve.time_months - months)))
        found[name] = score
        found[name.replace("brier", "brier_explained")] = explained(
            score, float(curve.survival[at])
        )
    reached = last == grid.edge_of(float(grid.horizons[-1]))
    found["ibs"] = brier_at(sums, sums.shape[1] - 1, n) if reached else not_estimable(BEYOND)
    return found


def survival_metrics(
    tables: SiteTables, grid: EvaluationGrid, cell_variance: float = 0.0
) -> dict[str, Estimate]:
    """Return every survival metric that the tables allow; empty without a survival table."""
    table, sets = tables.survival, risk_sets(tables, grid)
    if table is None or sets is None:
        return {}
    found = rank_metrics(table, grid, cell_variance)
    found["c_index_within_sites"] = stratified_c_index(tables)
    found |= group_metrics(tables, sets, grid)
    bin_sums = tables.sums("survival_bin_sums")
    if bin_sums is not None:
        found |= calibration_metrics(table, bin_sums, grid)
    found |= additive_metrics(tables, grid)
    if cell_variance:
        found = {k: replace(v, error_bound=None) for k, v in found.items()}
    return found
